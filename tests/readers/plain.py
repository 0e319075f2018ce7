"""How the readers' scripts print rows: one JSON list a row, each value as MySQL prints it, null for NULL."""

import datetime
import decimal
import json


def plain(value):
    if value is None:
        return None
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, datetime.datetime):
        value = value.astimezone(datetime.timezone.utc).replace(tzinfo=None) if value.tzinfo else value
        return value.isoformat(sep=" ").rstrip("0").rstrip(".") if value.microsecond else value.isoformat(sep=" ")
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, list):
        return "[" + ", ".join("NULL" if item is None else plain(item) for item in value) + "]"
    return str(value)


def show(rows):
    for row in rows:
        print(json.dumps([plain(value) for value in row]))
