"""The tables that HPACK fixes (RFC 7541, appendices A and B)."""

# How many bits each byte's code has, and at last the code that ends a string: "a" stands for 5. The
# codes follow from it, as shorter ones come first, and those of one length by the byte's number.
_BITS = (
    "isxxxxxxxtzxxzxxxxxxxxzxxxxxxxxxbffhibdgffdgdbbbaaabbbbbbbcdkbhf"
    "ibccccccccccccccccccccccdcdioijbkabababbbaccbbbabcbaabccccckgjix"
    "prpprrrsrssssststtrstssssqrsrsstrqprrssqsrrtqrssqqrqsrssprrrsrrs"
    "vvporsruvvvwwvtuoqvwwvwtqqvvxwwwptpqrqqsrruuttvsvwvvwwwwwxwwwwwv"
    "z"
)
FEWEST_BITS, MOST_BITS = 5, 30
END = 256


def huffman_codes() -> dict[int, int]:
    """Return each symbol by its code, with a one put in front of the code to keep its zeros."""
    bits = [ord(letter) - ord("a") + FEWEST_BITS for letter in _BITS]
    codes: dict[int, int] = {}
    code, length = 0, FEWEST_BITS
    for symbol in sorted(range(END + 1), key=lambda it: (bits[it], it)):
        code <<= bits[symbol] - length
        length = bits[symbol]
        codes[1 << length | code] = symbol
        code += 1
    return codes


# By index, from 1: a name, and behind it a value where it has one.
_STATIC = """
:authority
:method GET
:method POST
:path /
:path /index.html
:scheme http
:scheme https
:status 200
:status 204
:status 206
:status 304
:status 400
:status 404
:status 500
accept-charset
accept-encoding gzip, deflate
accept-language
accept-ranges
accept
access-control-allow-origin
age
allow
authorization
cache-control
content-disposition
content-encoding
content-language
content-length
content-location
content-range
content-type
cookie
date
etag
expect
expires
from
host
if-match
if-modified-since
if-none-match
if-range
if-unmodified-since
last-modified
link
location
max-forwards
proxy-authenticate
proxy-authorization
range
referer
refresh
retry-after
server
set-cookie
strict-transport-security
transfer-encoding
user-agent
vary
via
www-authenticate
"""
STATIC_TABLE = tuple(
    (name.encode(), value.encode())
    for name, _, value in (line.partition(" ") for line in _STATIC.strip().split("\n"))
)
