"""A Serve YAML, read strictly: what Serve would ignore without a word, or find out on a node later, is an error here.

Serve drops keys that it does not know at any depth, and builds the applications after it has said yes. Here every key
must be one of Serve's, every application's `args` those of its builder, and an address that others reach needs keys.
Nothing is sent and nothing is started.
"""

import importlib
import inspect
import ipaddress
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.schema import ServeDeploySchema

from serve_app.keys import ENVIRONMENT

GATEWAY = "serve_app.gateway:build_gateway"
SHOWN_CHARS = 60  # of a value that an error quotes

Tree = dict[str, Any]


def read_config(file: Path) -> Tree:
    """The tree of a YAML file that `require_valid` accepts.

    Raises:
        ValueError: it cannot be read, or something in it is wrong; the message names the file and the key.
    """
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}; name a Serve YAML such as serve_app/config.yaml") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ValueError(f"{file}: not a mapping with `applications`; see serve_app/config.yaml")
    try:
        require_valid(tree)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    return tree


def require_valid(tree: Tree) -> None:
    """Checks keys, values and the arguments of each application.

    Raises:
        ValueError: one sentence about the first thing that is wrong.
    """
    if unknown := unknown_keys(tree, ServeDeploySchema):
        raise ValueError(f"{unknown[0]} is no setting of Serve, which would ignore it; correct or remove the key")
    try:
        ServeDeploySchema.model_validate(tree)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from error
    for application in tree["applications"]:
        _require_args(application)


def unknown_keys(tree: Any, schema: Any, path: str = "") -> list[str]:
    """Keys of `tree` that no field of a pydantic schema reads, at any depth; free dictionaries are not entered."""
    if isinstance(tree, list):
        return [key for row, item in enumerate(tree) for key in unknown_keys(item, schema, f"{path}[{row}]")]
    model = next((part for part in _parts(schema) if isinstance(part, type) and issubclass(part, BaseModel)), None)
    if not isinstance(tree, dict) or model is None:
        return []
    fields = model.model_fields
    found = [f"{path}.{key}".lstrip(".") for key in tree if key not in fields]
    for key in tree.keys() & fields.keys():
        found += unknown_keys(tree[key], fields[key].annotation, f"{path}.{key}".lstrip("."))
    return found


def _parts(annotation: Any) -> list[Any]:
    """An annotation and everything inside it: Optional[List[X]] holds X."""
    return [annotation, *(part for inner in get_args(annotation) for part in _parts(inner))]


def first_problem(error: ValidationError, root: str = "") -> str:
    """The first complaint of pydantic about what stands at `root`, in one sentence: where, what, and the value."""
    detail = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in (root, *detail["loc"]) if part != "")
    problem = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        return f"{place}: there is no such setting; correct or remove it"
    if isinstance(detail["input"], str | int | float | bool | None) and detail["type"] != "missing":
        problem += f", not {detail['input']!r:.{SHOWN_CHARS}}"
    return f"{place}: {problem}" if place else problem


def _require_args(application: Tree) -> None:
    name = f"application {application.get('name', 'default')!r}"
    import_path = application["import_path"]
    arguments = args_model(import_path, name)
    given = application.get("args") or {}
    if arguments is None:
        return
    try:
        arguments.model_validate(given)
    except ValidationError as error:
        raise ValueError(f"{name}, {first_problem(error, 'args')}") from error
    if import_path == "serve_app.app:build_app" and application.get("route_prefix", "/") is not None:
        raise ValueError(f"{name}, route_prefix: give null; the application gateway answers for every encoder")


def args_model(import_path: str, name: str) -> type[BaseModel] | None:
    """The pydantic class that an application's builder takes, as Serve finds it; None where it takes another thing.

    Raises:
        ValueError: there is no such builder.
    """
    module, _, function = import_path.replace(":", ".").rpartition(".")
    try:
        builder = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{name}, import_path: {import_path} cannot be imported ({error}); correct it, or install what it needs"
        ) from error
    if not inspect.isfunction(builder):
        return None
    annotations = list(get_type_hints(builder).values())
    first = annotations[0] if inspect.signature(builder).parameters and annotations else None
    return first if inspect.isclass(first) and issubclass(first, BaseModel) else None


# Who may reach it


def require_keys(tree: Tree, insecure: bool) -> None:
    """Refuses an address that other machines reach when nobody is asked for a key.

    Args:
        tree: a valid one; with `insecure`, its gateway is told so.
        insecure: allow it all the same.

    Raises:
        ValueError: no keys are configured for such an address.
    """
    host = ServeDeploySchema.model_validate(tree).http_options.host  # Serve's default is every address
    gateways = [application for application in tree["applications"] if application["import_path"] == GATEWAY]
    if insecure:
        for gateway in gateways:
            gateway["args"] = {**(gateway.get("args") or {}), "insecure": True}
        return
    if not is_loopback(host) and not (gateways and all(_asks_for_keys(gateway) for gateway in gateways)):
        raise ValueError(
            f"http_options.host: {host} is reached from other machines, and no API key is asked for; "
            f"set args.keys_file of the gateway (or {ENVIRONMENT} in its runtime_env.env_vars), "
            "set host: 127.0.0.1, or pass --insecure"
        )


def is_loopback(host: str) -> bool:
    """Whether an address is one that only this machine reaches; any name but localhost is taken to be reachable."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _asks_for_keys(gateway: Tree) -> bool:
    arguments = gateway.get("args") or {}
    environment = (gateway.get("runtime_env") or {}).get("env_vars") or {}
    return bool(arguments.get("insecure") or arguments.get("keys_file") or environment.get(ENVIRONMENT))
