"""What is wrong with a configuration file, in sentences that name the key as it stands there."""

from collections.abc import Callable, Mapping
from functools import cache

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

_Node = Mapping[str, object]
_LONGEST_SHOWN = 60

_NUMBER, _WHOLE, _TEXT = "it must be a number", "it must be a whole number", "it must be text"
_SECTION, _LIST = "it must be a section of keys and values", "it must be a list"
_RULES = {
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "finite_number": "it must be a finite number",
    "bool_type": "it must be true or false",
    "bool_parsing": "it must be true or false",
    "string_type": _TEXT,
    "path_type": _TEXT,
    "tuple_type": _LIST,
    "list_type": _LIST,
    "model_type": _SECTION,
    "model_attributes_type": _SECTION,
    "dict_type": _SECTION,
    "greater_than": "it must be greater than {gt}",
    "greater_than_equal": "it must be at least {ge}",
    "less_than": "it must be less than {lt}",
    "less_than_equal": "it must be at most {le}",
    "literal_error": "it must be {expected}",
    "too_short": "it must hold at least {min_length} values, not {actual_length}",
    "too_long": "it must hold at most {max_length} values, not {actual_length}",
}


def describe(error: ValidationError, source: str, model: type[BaseModel]) -> str:
    """Return one sentence for each thing that is wrong with a file.

    Args:
        error: what ``model`` said.
        source: the file's name, as sentences begin with it.
        model: what the file was checked against.

    """
    rules: dict[str, list[str]] = {}
    whole: list[str] = []
    for item in error.errors(include_url=False):
        key, node = _place(item, _schema(model))
        sentence = _SENTENCES.get(item["type"])
        if sentence is not None:
            whole.append(sentence(key, item, node))
        else:
            subject = f"'{key}' is {_shown(item['input'])}; " if key else ""
            if item["type"] == "value_error" and isinstance(item["input"], dict | list):
                subject = f"'{key}': " if key else ""
            rules.setdefault(subject, []).append(_rule(item, node))
    # What may be one of several things is refused once for each of them.
    for subject, (first, *more) in rules.items():
        others = [rule.removeprefix("it must be ") for rule in more]
        whole.append(subject + " or ".join(dict.fromkeys([first, *others])))
    return "\n".join(f"{source}: {sentence}." for sentence in whole)


def _rule(item: ErrorDetails, node: _Node) -> str:
    if item["type"] == "string_pattern_mismatch":
        return f"allowed: {node.get('description') or node.get('pattern')}".rstrip(".")
    if item["type"] in _RULES:
        context = {
            name: f"{value:g}" if isinstance(value, float) else value
            for name, value in item.get("ctx", {}).items()
        }
        return _RULES[item["type"]].format_map(context)
    text = item["msg"].rstrip(".")
    if text.startswith("Input "):
        return f"it {text.removeprefix('Input ')}"
    return text.removeprefix("Value error, ")


def _unknown(key: str, item: ErrorDetails, node: _Node) -> str:
    del item
    return f"unknown key '{key}'; allowed: {_listed(node.get('properties'))}"


def _missing(key: str, item: ErrorDetails, node: _Node) -> str:
    del node
    if isinstance(item["loc"][-1], int):
        return f"'{key}' is missing: {_shown(item['input'])} is too short a list"
    return f"the key '{key}' is missing"


def _no_kind(key: str, item: ErrorDetails, node: _Node) -> str:
    name = _discriminator(item)
    return f"the key '{key}.{name}' is missing; allowed: {_listed(_tags(node))}"


def _unknown_kind(key: str, item: ErrorDetails, node: _Node) -> str:
    name = _discriminator(item)
    given = item["input"]
    value = given.get(name) if isinstance(given, dict) else given
    return f"'{key}.{name}' is {_shown(value)}; allowed: {_listed(_tags(node))}"


def _no_text_key(key: str, item: ErrorDetails, node: _Node) -> str:
    del key, node
    return f"every key must be text, not {_shown(item['input'])}"


def _no_json(key: str, item: ErrorDetails, node: _Node) -> str:
    del key, node
    return f"it is not JSON: {item.get('ctx', {}).get('error')}"


_SENTENCES: dict[str, Callable[[str, ErrorDetails, _Node], str]] = {
    "extra_forbidden": _unknown,
    "missing": _missing,
    "union_tag_not_found": _no_kind,
    "union_tag_invalid": _unknown_kind,
    "invalid_key": _no_text_key,
    "json_invalid": _no_json,
}


def _discriminator(item: ErrorDetails) -> str:
    return str(item.get("ctx", {}).get("discriminator", "kind")).strip("'")


def _listed(names: object) -> str:
    return ", ".join(str(name) for name in names) if isinstance(names, Mapping) else "nothing"


def _shown(value: object) -> str:
    """Return a value as its author would recognise it."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float | list | tuple | dict):
        text = repr(value)
        if len(text) <= _LONGEST_SHOWN:
            return text
        return "a section" if isinstance(value, dict) else f"{text[:50]}..."
    return str(value)


# -- where it stands -----------------------------------------------------------------------------


def _place(item: ErrorDetails, schema: _Node) -> tuple[str, _Node]:
    """Return the key as it stands in the file, and the part of the schema that it belongs to.

    Pydantic puts the names of union members into the location, which no file holds.
    """
    location = item["loc"]
    unknown = item["type"] in ("extra_forbidden", "invalid_key")
    node, key = _resolve(schema, schema), ""
    for part in location[:-1] if unknown else location:
        tags = _tags(node)
        properties = node.get("properties")
        if isinstance(part, int):
            key += f"[{part}]"
            node = _resolve(_entry(node, part), schema)
        elif part in tags:
            node = _resolve({"$ref": tags[part]}, schema)
        elif isinstance(properties, Mapping) and part in properties:
            key += f".{part}" if key else part
            node = _resolve(properties[part], schema)
        elif node.get("additionalProperties"):
            # Names that the file's author has chosen.
            key += f".{part}" if key else part
            node = _resolve(node["additionalProperties"], schema)
    if unknown:
        key += f".{location[-1]}" if key else str(location[-1])
    return key, node


def _tags(node: _Node) -> Mapping[str, object]:
    """Return the members of a union by the name that stands in the file; none for others.

    A union that looks at more than one key to tell its members apart has their classes' names.
    """
    union, choices = node.get("discriminator"), node.get("oneOf")
    mapping = union.get("mapping") if isinstance(union, Mapping) else None
    if mapping is None and isinstance(choices, list):
        references = [str(choice.get("$ref", "")) for choice in choices]
        return {reference.rpartition("/")[2]: reference for reference in references}
    return mapping if isinstance(mapping, Mapping) else {}


def _entry(node: _Node, number: int) -> object:
    each = node.get("prefixItems")
    if isinstance(each, list) and number < len(each):
        return each[number]
    return node.get("items", {})


def _resolve(node: object, schema: _Node) -> _Node:
    """Follow references, and pass by the ``null`` of what may be left out."""
    while isinstance(node, Mapping):
        definitions = schema.get("$defs")
        if "$ref" in node and isinstance(definitions, Mapping):
            node = definitions[str(node["$ref"]).rpartition("/")[2]]
            continue
        choices = node.get("anyOf")
        if isinstance(choices, list):
            given = [choice for choice in choices if choice != {"type": "null"}]
            lists = [choice for choice in given if choice.get("type") == "array"]
            if len(given) == 1 or lists:
                node = (lists or given)[0]
                continue
        return node
    return {}


@cache
def _schema(model: type[BaseModel]) -> _Node:
    return model.model_json_schema()
