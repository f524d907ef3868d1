"""What the manifests tell the jobs and the server, read by the programs themselves.

Entrypoints go through each job's own argument parser and the config that they name; `serveConfigV2` through what
`serve_app.deploy` asks of a Serve YAML. Rules as in manifest_rules.py; nothing is started.
"""

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from ray.serve.schema import ServeDeploySchema

from embinv.config import Config, load_config
from serve_app.app import AppArgs
from serve_app.config_check import require_keys, require_valid
from serve_app.settings import GatewayArgs
from tests.contracts.manifest_pods import Object, Pod, of_kind, pods
from tests.contracts.manifest_rules import ROOT, Rule

IMAGE_FOLDER = "/opt/embinv/"  # of cluster/Dockerfile
ENCODERS = {path.stem for path in (ROOT / "configs").glob("*.yaml")}


class Parsed(Exception):
    """What a job's parser made of its arguments, before the job began."""


def parsed(entrypoint: str) -> argparse.Namespace:
    """The arguments of an entrypoint as the job's own parser takes them.

    Raises:
        ValueError: it is no command of a job, or the parser refuses it.
    """
    words = shlex.split(entrypoint)
    script = words[1].removeprefix(IMAGE_FOLDER) if len(words) > 1 else ""
    if words[0] != "python" or words[1] == script or not (ROOT / script).is_file():
        raise ValueError(f"{entrypoint!r} is no `python {IMAGE_FOLDER}jobs/...`")
    parse = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, *given: Any, **named: Any) -> None:
        raise Parsed(parse(self, *given, **named))

    job = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    with patch.object(argparse.ArgumentParser, "parse_args", stop):
        try:
            job.main(words[2:])
        except Parsed as found:
            return found.args[0]
        except SystemExit as error:
            raise ValueError(f"{script} refuses its arguments: {shlex.join(words[2:])}") from error
    raise AssertionError(f"{script} parses no arguments")


def with_entrypoints(objects: list[Object]) -> Iterator[str]:
    """Each RayJob runs its job with a config that ships, on folders that every node sees, and where its driver fits."""
    for item in of_kind(objects, "RayJob"):
        name, spec = item["metadata"]["name"], item["spec"]
        try:
            arguments = parsed(spec["entrypoint"])
            config = config_of(arguments)
        except ValueError as error:
            yield f"{name}: {error}"
            continue
        if name != f"embinv-{Path(shlex.split(spec['entrypoint'])[1]).stem}":
            yield f"{name}: runs another job"
            continue
        folders = [getattr(arguments, flag) for flag in ("texts", "data", "out") if hasattr(arguments, flag)]
        for folder in folders:
            if not str(folder).startswith(f"/shared/{config.name}/"):
                yield f"{name}: {folder} is not a folder of {config.name} that every node sees"
        if spec.get("entrypointNumCpus", 0) < 1:
            yield f"{name}: its driver may land on the head"
        if "resume" in arguments and not arguments.resume:
            yield f"{name}: a retry would be refused without --resume"
        device = config.training.device if name == "embinv-train" else config.encoding.device
        workers = int(arguments.workers or 1) if name == "embinv-train" else config.encoding.workers
        if device == "cuda" and not 1 <= (workers or 0) <= most_gpus(spec["rayClusterSpec"]):
            yield f"{name}: asks for {workers} GPUs of {most_gpus(spec['rayClusterSpec'])}, and begins with none"
        if not spec.get("shutdownAfterJobFinishes") or not spec.get("ttlSecondsAfterFinished"):
            yield f"{name}: its cluster stays"
        if not spec.get("backoffLimit") or not spec.get("activeDeadlineSeconds"):
            yield f"{name}: is not tried again, or without end"


def config_of(arguments: argparse.Namespace) -> Config:
    file = arguments.config.removeprefix(IMAGE_FOLDER)
    if file == arguments.config:
        raise ValueError(f"--config {file} is not in the image, at {IMAGE_FOLDER}configs")
    return load_config(ROOT / file, arguments.overrides)


def most_gpus(cluster: Object) -> int:
    """GPUs that a cluster can grow to."""
    pools = [group for group in cluster["workerGroupSpecs"] if group["groupName"] == "a100"]
    return sum(group["maxReplicas"] for group in pools)


def with_one_encoder(objects: list[Object]) -> Iterator[str]:
    """Namespace, jobs and server of an overlay are of one encoder, which has a config."""
    (space,) = of_kind(objects, "Namespace")
    names = {config_of(parsed(item["spec"]["entrypoint"])).name for item in of_kind(objects, "RayJob")}
    for service in of_kind(objects, "RayService"):
        names |= {app["name"] for app in yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]} - {"gateway"}
    if len(names) != 1 or not names <= ENCODERS:
        yield f"encoders are {', '.join(sorted(names))}"
    if {space["metadata"]["name"]} != {f"embinv-{name.replace('.', '-')}" for name in names}:
        yield f"namespace is {space['metadata']['name']}"


def with_server(objects: list[Object]) -> Iterator[str]:
    """The server is one that `serve_app.deploy` would take, with keys, on ports, folders and GPUs that are there."""
    for service in of_kind(objects, "RayService"):
        serving = [pod for pod in pods(objects) if pod.owner == f"RayService {service['metadata']['name']}"]
        try:
            tree = yaml.safe_load(service["spec"]["serveConfigV2"])
            require_valid(tree)
            require_keys(tree, insecure=False)
        except (ValueError, TypeError, yaml.YAMLError) as error:
            yield f"serveConfigV2: {error}"
            continue
        options = ServeDeploySchema.model_validate(tree)
        if options.proxy_location.value != "EveryNode":
            yield "serveConfigV2: proxies on the head alone, which takes no requests here"
        gateway, *encoders = tree["applications"]
        if (
            gateway["import_path"] != "serve_app.gateway:build_gateway"
            or gateway["route_prefix"] != "/"
            or not encoders
        ):
            yield "serveConfigV2: not the gateway, and encoders behind it"
            continue
        yield from with_gateways(gateway, with_gpus=any(pod.role == "a100" for pod in serving))
        keys_file = GatewayArgs.model_validate(gateway["args"]).keys_file or ""
        for pod in serving:
            if keys_file.rpartition("/")[0] not in secrets_of(pod):
                yield f"{pod}: {keys_file} is not a file of a Secret"
            if options.http_options.port not in [p["containerPort"] for p in pod.ray["ports"] if p["name"] == "serve"]:
                yield f"{pod}: port {options.http_options.port} is not its port `serve`"
        for application in encoders:
            yield from served(AppArgs.model_validate(application["args"]), serving)


def with_gateways(application: Object, with_gpus: bool) -> Iterator[str]:
    """Two gateways lie on two nodes. Where inverters take GPUs, gateways alone are on the CPU workers, whose proxies,
    and so whose readiness, are where replicas are: there they ask for what the head has none of."""
    args = GatewayArgs.model_validate(application["args"])
    own = {item["name"]: item for item in application.get("deployments", [])}
    if own.keys() - {"Gateway"}:
        yield "the gateway has no deployment but Gateway"
    options = own.get("Gateway", {})
    if args.replicas < 2 or args.on_head or options.get("max_replicas_per_node") != 1:
        yield "the gateways are not on two nodes"
    if with_gpus and not options.get("ray_actor_options", {}).get("num_cpus"):
        yield "a gateway may land on the head, and a CPU worker without one is never ready"


def served(args: AppArgs, serving: list[Pod]) -> Iterator[str]:
    """What is wrong with one encoder's arguments."""
    config = load_config(ROOT / "configs" / f"{args.encoder}.yaml")
    if args.dim != config.encoder.dim:
        yield f"{args.encoder}: dim is {args.dim}, and {config.encoder.dim} in its config"
    if not args.checkpoint.startswith(f"/shared/checkpoints/{args.encoder}/"):
        yield f"{args.encoder}: {args.checkpoint} is not on storage that every node sees"
    if args.max_replicas <= args.min_replicas:
        yield f"{args.encoder}: does not grow"
    wanted, pools = args.resources(), {pod.role: pod for pod in serving}
    pool = pools.get("a100" if "num_gpus" in wanted else "cpu")
    if pool is None or float(pool.ray["resources"]["limits"]["cpu"]) < wanted["num_cpus"]:
        yield f"{args.encoder}: a replica of {wanted} fits into no pool"


def secrets_of(pod: Pod) -> set[str]:
    """The folders where Secrets are mounted for Ray's container, whole, so that they follow a change."""
    named = {volume["name"] for volume in pod.spec["volumes"] if "secret" in volume}
    return {m["mountPath"] for m in pod.ray["volumeMounts"] if m["name"] in named and "subPath" not in m}


def with_serve_environment(objects: list[Object]) -> Iterator[str]:
    """Ray's processes that serve have the environment of cluster/serve.env beside that of all, and no credentials."""
    text = (ROOT / "cluster" / "serve.env").read_text(encoding="utf-8")
    wanted = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    everywhere = {
        entry["name"]: entry.get("value")
        for pod in pods(objects)
        if pod.owner == "RayCluster embinv"
        for entry in pod.ray["env"]
        if entry["name"] != "EMBINV_WORK"  # where jobs keep copies; what serves reads /shared alone
    }
    for pod in pods(objects):
        if not pod.owner.startswith("RayService"):
            continue
        found = {entry["name"]: entry.get("value") for entry in pod.ray["env"]}
        for name, value in {**everywhere, **wanted}.items():
            if found.get(name) != value:
                yield f"{pod}: {name} is {found.get(name)!r} and not {value!r}"
        if more := found.keys() - wanted.keys() - everywhere.keys() - {"HF_HUB_OFFLINE"}:
            yield f"{pod}: {sorted(more)[0]} is not in cluster/serve.env"
        if pod.ray.get("envFrom"):
            yield f"{pod}: has credentials that serving does not need"


PROGRAM_RULES: dict[str, Rule] = {
    rule.__name__: rule for rule in (with_entrypoints, with_one_encoder, with_server, with_serve_environment)
}
