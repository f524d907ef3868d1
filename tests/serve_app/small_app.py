"""A Serve application without a model, that starts slowly or not at all when told so: for tests of deploying."""

import time

import yaml
from pydantic import BaseModel, ConfigDict, Field
from ray import serve


class SmallArgs(BaseModel):
    """`args` of the application."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1)
    starts_in_s: float = 0.0
    build_error: str | None = None
    start_error: str | None = None


@serve.deployment(max_constructor_retry_count=1, ray_actor_options={"num_cpus": 0.1})
class Small:
    """Answers with its text."""

    def __init__(self, args):
        time.sleep(args.starts_in_s)
        if args.start_error:
            raise ValueError(args.start_error)
        self.text = args.text

    async def __call__(self, request):
        return self.text


def build_app(args: SmallArgs) -> serve.Application:
    """What a config names."""
    if args.build_error:
        raise ValueError(args.build_error)
    return Small.bind(args)


def config_of(folder, args, port=8000, **changes):
    """A Serve YAML of this application alone, in `folder`."""
    small = {"name": "small", "route_prefix": "/", "import_path": "tests.serve_app.small_app:build_app", "args": args}
    tree = {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "127.0.0.1", "port": port},
        "applications": [small | changes],
    }
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return file
