"""The subset of kustomize that cluster/ uses, rendered without it, so that what is applied can be tested offline.

Keys that a kustomization may have: resources, namespace, labels (`pairs`), images (`name`, `newName`), patches (JSON
6902, from a file or in place, with a target by kind and name), replacements (a whole field, copied) and
configMapGenerator (`files`, under names that stay). Any other key is an error here, and so is what kustomize lets
pass: a patch or a replacement without a target. Where `kubectl` is at hand, a test compares the two.
"""

import copy
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]

KEYS = {"apiVersion", "kind", "resources", "namespace", "labels", "images", "patches", "replacements"}
KEYS |= {"configMapGenerator", "generatorOptions"}


class Mistake(ValueError):
    """Something that is wrong in a kustomization, or not in the subset."""


def render(folder: Path) -> list[Object]:
    """The objects of a kustomization, in the order in which they are named."""
    (tree,) = documents(folder / "kustomization.yaml")
    only(tree, KEYS, f"{folder.name}/kustomization.yaml")
    objects = [item for name in tree.get("resources", []) for item in resources(folder / name)]
    objects += [
        config_map(item, tree.get("generatorOptions", {}), folder) for item in tree.get("configMapGenerator", [])
    ]
    for patch in tree.get("patches", []):
        apply_patch(objects, patch, folder)
    if "namespace" in tree:
        for item in objects:
            if item["kind"] == "Namespace":
                item["metadata"]["name"] = tree["namespace"]
            else:
                item["metadata"]["namespace"] = tree["namespace"]
    for labels in tree.get("labels", []):
        only(labels, {"pairs"}, "labels")
        for item in objects:
            item["metadata"].setdefault("labels", {}).update(labels["pairs"])
    for image in tree.get("images", []):
        only(image, {"name", "newName"}, "images")
        rename_image(objects, image["name"], image["newName"])
    for replacement in tree.get("replacements", []):
        replace(objects, replacement)
    names = [(item["kind"], item["metadata"]["name"]) for item in objects]
    if len(set(names)) < len(names):
        raise Mistake(f"two objects of the same name: {names}")
    return objects


def documents(file: Path) -> list[Object]:
    """The YAML documents of a file, each with parts of its own where it has aliases."""
    found = yaml.safe_load_all(file.read_text(encoding="utf-8"))
    return [without_aliases(document) for document in found if document is not None]


def without_aliases(tree: Any) -> Any:
    """A copy in which no two places are the same list or dictionary."""
    if isinstance(tree, dict):
        return {key: without_aliases(value) for key, value in tree.items()}
    return [without_aliases(item) for item in tree] if isinstance(tree, list) else tree


def only(tree: Object, known: set[str], where: str) -> None:
    if unknown := tree.keys() - known:
        raise Mistake(f"{where}: {', '.join(sorted(unknown))}: not in the subset that is rendered here")


def resources(path: Path) -> list[Object]:
    return render(path) if path.is_dir() else documents(path)


def config_map(generator: Object, options: Object, folder: Path) -> Object:
    only(generator, {"name", "files"}, "configMapGenerator")
    only(options, {"disableNameSuffixHash", "labels"}, "generatorOptions")
    if not options.get("disableNameSuffixHash"):
        raise Mistake("generatorOptions.disableNameSuffixHash: names with a hash are not rendered here")
    data = {Path(name).name: (folder / name).read_text(encoding="utf-8") for name in generator["files"]}
    labels = {"labels": dict(options["labels"])} if options.get("labels") else {}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"], **labels}, "data": data}


def chosen(objects: list[Object], selector: Object) -> list[Object]:
    """The objects that a selector by kind and name means; none is a mistake."""
    only(selector, {"kind", "name"}, "target")
    found = [
        item
        for item in objects
        if item["kind"] == selector["kind"]
        and selector.get("name", item["metadata"]["name"]) == item["metadata"]["name"]
    ]
    if not found:
        raise Mistake(f"there is no {selector['kind']} {selector.get('name', '')}")
    return found


# Patches


def apply_patch(objects: list[Object], patch: Object, folder: Path) -> None:
    only(patch, {"target", "path", "patch"}, "patches")
    if ("path" in patch) == ("patch" in patch):
        raise Mistake("patches: give either path or patch")
    text = patch["patch"] if "patch" in patch else (folder / patch["path"]).read_text(encoding="utf-8")
    operations = yaml.safe_load(text)
    if not isinstance(operations, list):
        raise Mistake("patches: only lists of JSON 6902 operations are rendered here")
    for item in chosen(objects, patch["target"]):
        for operation in operations:
            operate(item, operation)


def operate(tree: Object, operation: Object) -> None:
    """One operation of JSON 6902 on a tree: add, replace or remove."""
    only(operation, {"op", "path", "value"}, "patch")
    kind, path = operation["op"], operation["path"]
    if (
        not path.startswith("/")
        or kind not in {"add", "replace", "remove"}
        or (kind == "remove") == ("value" in operation)
    ):
        raise Mistake(f"patch: not an operation: {operation}")
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")]
    place: Any = tree
    for part in parents:
        place = child(place, part, path)
    value = without_aliases(operation.get("value"))
    if kind != "add":
        child(place, last, path)  # is there
    if isinstance(place, list):
        row = len(place) if last == "-" else int(last)
        if kind == "add":
            place.insert(row, value)
        elif kind == "replace":
            place[row] = value
        else:
            del place[row]
    elif kind == "remove":
        del place[last]
    else:
        place[last] = value


def child(place: Any, part: str, path: str) -> Any:
    if isinstance(place, list) and part.isdigit() and int(part) < len(place):
        return place[int(part)]
    if isinstance(place, dict) and part in place:
        return place[part]
    raise Mistake(f"patch: {path} leads nowhere, at {part!r}")


# Images and replacements


def rename_image(tree: Any, name: str, new_name: str) -> None:
    if isinstance(tree, list):
        for item in tree:
            rename_image(item, name, new_name)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if key in {"containers", "initContainers"}:
                for container in value:
                    image, colon, tag = container["image"].partition(":")
                    if image == name:
                        container["image"] = f"{new_name}{colon}{tag}"
            rename_image(value, name, new_name)


def replace(objects: list[Object], replacement: Object) -> None:
    only(replacement, {"source", "targets"}, "replacements")
    source = dict(replacement["source"])
    field = source.pop("fieldPath")
    (origin,) = chosen(objects, source)
    for part in field.split("."):
        origin = child(origin, part, field)
    for target in replacement["targets"]:
        only(target, {"select", "fieldPaths"}, "replacements.targets")
        for item in chosen(objects, target["select"]):
            for path in target["fieldPaths"]:
                *parents, last = path.split(".")
                place: Any = item
                for part in parents:
                    place = child(place, part, path)
                child(place, last, path)  # is there: nothing is added
                place[last] = copy.deepcopy(origin)
