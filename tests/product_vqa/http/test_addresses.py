"""Form by form: which addresses a URL from a stranger may lead to."""

import pytest

from product_vqa.http.addresses import is_public_address

PUBLIC = [
    "8.8.8.8", "1.1.1.1", "93.184.216.34", "100.63.255.255", "100.128.0.1", "172.15.255.255", "172.32.0.1",
    "169.253.255.255", "192.0.1.1", "198.17.255.255", "198.20.0.1", "223.255.255.255", "11.0.0.1", "126.255.255.255",
    "168.63.129.15", "168.63.129.17",
    "2001:4860:4860::8888", "2606:4700::6810:1", "2a00:1450:4001::200e", "2001:200::1", "2400::1", "3ffe::1",
    "3fff:1000::1", "::ffff:8.8.8.8", "64:ff9b::808:808",
]  # fmt: skip
IPV4 = [
    "0.0.0.0", "0.1.2.3", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.127.255.255", "127.0.0.1",
    "127.255.255.255", "168.63.129.16",
    "169.254.0.0", "169.254.169.254", "172.16.0.0", "172.31.255.255", "192.0.0.1", "192.0.0.9", "192.0.2.1",
    "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.0.0", "192.168.255.255", "192.175.48.1", "198.18.0.0",
    "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
]  # fmt: skip
IPV6 = [
    "::", "::1", "::2", "fc00::1", "fdff::1", "fe80::1", "fe80::1%eth0", "febf::1", "fec0::1", "feff::1", "ff02::1",
    "ff0e::1", "2001::1", "2001:0:a9fe:a9fe::", "2001:1::1", "2001:2::1", "2001:3::1", "2001:4:112::1", "2001:10::1",
    "2001:20::1", "2001:30::1", "2001:1ff:ffff::1", "2001:db8::1", "2001:db8:ffff::1", "2002::1", "2002:7f00:1::",
    "2002:a9fe:a9fe::1", "2002:808:808::1", "2620:4f:8000::1", "3fff::1", "3fff:fff::1", "100::1", "100:0:0:1::1",
    "5f00::1", "64:ff9b:1::1", "64:ff9b:1::808:808", "200::1", "400::1", "1fff::1", "4000::1", "8000::1", "c000::1",
    "e000::1", "2001:4860:4860::8888%1", "2600::5efe:808:808", "2600::5efe:a00:1", "2a00::200:5efe:127.0.0.1",
    "fe80::5efe:10.0.0.1", "0:0:0:0:ffff:0:808:808", "::808:808", "::ffff:0:127.0.0.1",
]  # fmt: skip
NO_ADDRESS = ["", "localhost", "127.1", "0x7f.1", "2130706433", "017700000001", "1.2.3.4.5", "[::1]", "8.8.8.8/32"]


def embedded(address: str) -> list[str]:
    """An IPv4 address as IPv6 writes it: mapped, compatible, translated, NAT64 (both), 6to4, ISATAP."""
    prefixes = ("::ffff:", "::", "::ffff:0:", "64:ff9b::", "64:ff9b:1::", "2600::5efe:")
    first, second, third, fourth = map(int, address.split("."))
    return [prefix + address for prefix in prefixes] + [f"2002:{first:02x}{second:02x}:{third:02x}{fourth:02x}::1"]


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public_address(address)


@pytest.mark.parametrize("address", [*IPV4, *IPV6, *NO_ADDRESS])
def test_any_other_address_is_not(address: str) -> None:
    assert not is_public_address(address)


def test_no_form_of_ipv6_leads_to_an_ipv4_address_that_is_not_public() -> None:
    forms = [form for address in IPV4 for form in embedded(address)]
    assert len(forms) == 7 * len(IPV4)
    assert [form for form in forms if is_public_address(form)] == []
