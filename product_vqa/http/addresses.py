"""Which IP addresses belong to the internet: a list of what is public, not of what is private.

The blocks are IANA's registries of special-purpose addresses (as of 2025), so that the answer does not depend on the
version of Python, and one address of a cloud. None of IANA's blocks holds a web server of the internet, even where the
registry calls it "globally reachable" (relays and sinks for DNS).
"""

import ipaddress

# Of 0.0.0.0/0. https://www.iana.org/assignments/iana-ipv4-special-registry
_SPECIAL_IPV4 = [
    ipaddress.IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private use
        "100.64.0.0/10",  # shared by the customers of a provider
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Microsoft's, and in Azure the host of the machine, which has its secrets
        "169.254.0.0/16",  # link-local; 169.254.169.254 has the secrets of a machine in a cloud
        "172.16.0.0/12",  # private use
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT relays
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private use
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
]
# What is public of IPv6 is in 2000::/3 (loopback, private fc00::/7, link-local fe80::/10, site-local fec0::/10 and
# multicast are not). https://www.iana.org/assignments/iana-ipv6-special-registry
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_SPECIAL_IPV6 = [
    ipaddress.IPv6Network(block)
    for block in (
        "2001::/23",  # protocol assignments: Teredo, which tunnels to IPv4 addresses, benchmarks, ORCHID ...
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which tunnels to IPv4 addresses
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
]
# The last 32 bits are the IPv4 address that a connection reaches: ::ffff:1.2.3.4 in the kernel, 64:ff9b::1.2.3.4 by
# the NAT64 of a network that has only IPv6, where every host with an IPv4 address is found there.
_IPV4_IN_IPV6 = [ipaddress.IPv6Network("::ffff:0:0/96"), ipaddress.IPv6Network("64:ff9b::/96")]


def is_public_address(address: str) -> bool:
    """Whether an IP address, as `getaddrinfo` writes it, is one of the internet. False for what is not an address."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in block for block in _SPECIAL_IPV4)
    if ip.scope_id is not None:  # fe80::1%eth0: of one network
        return False
    if any(ip in block for block in _IPV4_IN_IPV6):
        return is_public_address(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
    return ip in _GLOBAL_UNICAST and not any(ip in block for block in _SPECIAL_IPV6) and not _is_isatap(ip)


def _is_isatap(ip: ipaddress.IPv6Address) -> bool:
    """Whether the address ends in `0:5efe:1.2.3.4` (RFC 5214), behind which a tunnel leads to an IPv4 address."""
    return int(ip) >> 32 & 0xFCFFFFFF == 0x5EFE
