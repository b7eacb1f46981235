"""Strict configuration: YAML in, typed frozen objects out, the nearest right key in every refusal.

A component declares its options as a subclass of `Config` beside its own code; `run.py` composes them. Nothing
is read from a config that its type does not declare, and nothing is converted silently.
"""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from dalr.errors import ConfigError


class Config(BaseModel):
    """Base of every config: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


C = TypeVar("C", bound=Config)


def load_config(kind: type[C], path: str | Path, overrides: Sequence[str] = ()) -> C:
    """Read a YAML file, apply dotted overrides (`train.lr=1e-4`) and check the result against `kind`.

    Raises ConfigError for a missing file, broken YAML, an unknown key (naming the nearest right one) or a
    value of the wrong type or range.
    """
    return parse_config(kind, apply_overrides(read_yaml(path), overrides), str(path))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; ConfigError when it is missing, broken or not a mapping."""
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); expected a YAML config file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text; expected a YAML config file") from None
    try:
        value = yaml.load(text, Loader=_loader())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a mapping of sections such as 'data:' and 'train:'")
    return value


def apply_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `values` with each `a.b=value` set; the value is read as YAML (`null`, `[1, 2]`, `1e-4`)."""
    import yaml

    result: dict[str, Any] = _copy(values)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not all(key.split(".")):
            raise ConfigError(f"override '{override}': expected KEY=VALUE with a dotted key, such as train.lr=1e-4")
        try:
            value = yaml.load(text, Loader=_loader()) if text else ""
        except yaml.YAMLError:
            value = text
        node = result
        *parents, last = key.split(".")
        for parent in parents:
            child = node.setdefault(parent, {})
            if child is None:
                child = node[parent] = {}
            if not isinstance(child, dict):
                raise ConfigError(f"override '{override}': '{parent}' holds a value, not a section")
            node = child
        node[last] = value
    return result


def parse_config(kind: type[C], values: Mapping[str, Any], source: str = "config") -> C:
    """Check plain values against `kind`, with `${NAME}` in strings expanded from the environment."""
    values = _expand(values, source, "")
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = [_explain(kind, item, source) for item in error.errors(include_url=False)]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


def as_yaml(config: Config) -> str:
    """What of a config has been set, as YAML; `load_config` makes the same config of it.

    A key that was set to its default is written too: what is set and what is left open can differ in meaning.
    """
    import yaml

    values = config.model_dump(mode="json", exclude_unset=True)
    try:
        same = type(config).model_validate(values) == config
    except ValidationError:
        same = False
    # A default can be what tells two kinds of a section apart; then everything is written.
    return str(yaml.safe_dump(values if same else config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def nearest(name: str, known: Sequence[str]) -> str:
    """`did you mean 'x'?`, or the list of what is known when nothing is near."""
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean '{match[0]}'?" if match else f"expected one of: {', '.join(sorted(known))}"


def _explain(kind: type[BaseModel], error: Mapping[str, Any], source: str) -> str:
    location = [part for part in error["loc"] if isinstance(part, str | int)]
    if error["type"] == "extra_forbidden":
        name = location[-1]
        parents, known = _fields_at(kind, location[:-1])
        hint = nearest(str(name), known)
        if "did you mean" not in hint:
            elsewhere = _find_field(kind, str(name))
            hint = f"did you mean '{elsewhere}'?" if elsewhere else hint
        return f"{source}: unknown key '{'.'.join([*parents, str(name)])}'; {hint}"
    parents, _ = _fields_at(kind, location)
    message = error["msg"].removeprefix("Value error, ")
    given = "" if error["type"] in ("missing", "value_error") else f" (given: {error.get('input')!r})"
    # A check of the whole config names its keys itself.
    where = f"{'.'.join(parents)}: " if parents else ""
    return f"{source}: {where}{message}{given}"


def _fields_at(kind: type[BaseModel], location: Sequence[Any]) -> tuple[list[str], list[str]]:
    """Follow an error's location through the types.

    pydantic puts the tag of a tagged union into the location; it is no key of the file and is left out.
    """
    kinds: list[type[BaseModel]] = [kind]
    path: list[str] = []
    free = False
    for part in location:
        named = [k for k in kinds if k.__name__ == part or part in _tags(k)]
        if part not in {field for k in kinds for field in k.model_fields} and named:
            kinds = named
            continue
        path.append(str(part))
        if isinstance(part, int) or free:
            free = False  # an item of a list, or a name of one's own
            continue
        found = [k.model_fields[part].annotation for k in kinds if part in k.model_fields]
        kinds = [model for annotation in found for model in _models(annotation)]
        free = any(get_origin(annotation) is dict for annotation in found)
    return path, [field for k in kinds for field in k.model_fields]


def _tags(kind: type[BaseModel]) -> set[Any]:
    return {tag for field in kind.model_fields.values() for tag in get_args(field.annotation) if isinstance(tag, str)}


def _find_field(kind: type[BaseModel], name: str, prefix: str = "") -> str | None:
    """The dotted path of a field of exactly this name anywhere below `kind`."""
    for field, info in kind.model_fields.items():
        if field == name:
            return prefix + field
        for child in _models(info.annotation):
            found = _find_field(child, name, f"{prefix}{field}.")
            if found:
                return found
    return None


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType) or get_args(annotation):
        return [model for argument in get_args(annotation) for model in _models(argument)]
    return []


def _expand(value: Any, source: str, key: str) -> Any:
    if isinstance(value, Mapping):
        return {name: _expand(item, source, f"{key}.{name}" if key else str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_expand(item, source, f"{key}[{number}]") for number, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise ConfigError(f"{source}: {key}: the environment variable {name} is not set; set it, or write a path")
        return os.environ[name]

    return re.sub(r"\$\{(\w+)\}", variable, value)


def changed_keys(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """`key: old → new` for every leaf in which two configs differ."""
    found: list[str] = []
    for key in dict.fromkeys([*before, *now]):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += changed_keys(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key}: {old!r} → {new!r}")
    return found


def _copy(value: Any) -> Any:
    return {key: _copy(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def _loader() -> Any:
    """PyYAML's safe loader that also reads `1e-4` as a number, as YAML 1.2 does, and refuses a key given twice."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
            for key in keys:
                if keys.count(key) > 1:
                    raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is given twice", node.start_mark)
            return super().construct_mapping(node, deep=deep)

    Loader.yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:float"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"),
        list("-+0123456789."),
    )
    return Loader
