import pytest

from serve_app.config_check import is_loopback
from serve_app.gateway import Gateway, build_gateway, require_keys
from serve_app.settings import GatewayArgs


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_addresses_of_this_machine_alone_need_no_keys(host):
    assert is_loopback(host)
    require_keys(host, keys=False, insecure=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "example.org", ""])
def test_others_are_refused_without_keys_and_the_ways_out_are_named(host):
    with pytest.raises(ValueError, match=r"keys_file .*EMBINV_API_KEYS.*127\.0\.0\.1.*insecure: true"):
        require_keys(host, keys=False, insecure=False)
    require_keys(host, keys=True, insecure=False)
    require_keys(host, keys=False, insecure=True)


def test_keys_that_cannot_be_read_are_refused_before_anything_starts(tmp_path):
    with pytest.raises(ValueError, match=str(tmp_path / "none")):
        build_gateway(GatewayArgs(keys_file=str(tmp_path / "none")))


def test_a_gateway_has_as_many_replicas_as_its_args_say():
    deployment = build_gateway(GatewayArgs(replicas=2))._bound_deployment
    assert deployment.num_replicas == 2 and deployment.name == Gateway.name == "Gateway"


def test_an_unknown_argument_is_refused():
    with pytest.raises(ValueError, match="key_file"):
        GatewayArgs(key_file="x")
