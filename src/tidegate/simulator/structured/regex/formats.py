"""What a text of each format of JSON Schema may look like, as a regular expression."""

_DATE = "20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
_TIME = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z"

FORMATS = {
    "date-time": f"{_DATE}T{_TIME}",
    "date": _DATE,
    "time": _TIME,
    "duration": "P[1-9][0-9]?D|PT[1-9][0-9]?M",
    "email": r"[a-z]{3,8}@example\.(com|net|org)",
    "hostname": r"[a-z]{3,8}\.example\.(com|net|org)",
    "ipv4": r"192\.0\.2\.([1-9][0-9]?|1[0-9]{2})",
    "ipv6": "2001:db8::[1-9a-f][0-9a-f]{0,3}",
    "uri": r"https://example\.com/[a-z]{1,8}",
    "uri-reference": "/[a-z]{1,8}",
    "uri-template": r"https://example\.com/\{[a-z]{1,8}\}",
    "json-pointer": "(/[a-z]{1,8}){1,3}",
    "relative-json-pointer": "[0-9](/[a-z]{1,8}){1,2}",
    "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
}
