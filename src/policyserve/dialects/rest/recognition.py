"""Tells whose a body is, by its keys, and reads it so. Pure: a server may call it in a thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyserve.core.dialect import Dialect
from policyserve.core.errors import PolicyserveError, WireError, failed
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Control, Heard, Message, Unreadable
from policyserve.dialects.rest.bodies import Context, RequestBody
from policyserve.dialects.rest.family import RESET, SHAPES, Family, unwrapped
from policyserve.dialects.rest.gr00t_http import ANNOTATION, OBSERVATION, STATE, VIDEO, Gr00tHTTP
from policyserve.dialects.rest.molmoact2 import CAMERA, MolmoAct2
from policyserve.dialects.rest.openvla import OpenVLA, OpenVLAOFT
from policyserve.dialects.rest.plain import Plain
from policyserve.dialects.rest.xvla import XVLA

_ACT_PATH, _RESET_PATH = "/act", "/reset"
BODY_PATHS = (_ACT_PATH, _RESET_PATH)  # and below a policy's name
_PLAIN = Plain()
FAMILIES: Mapping[str, Family] = {
    family.name: family for family in (OpenVLA(), OpenVLAOFT(), XVLA(), MolmoAct2(), Gr00tHTTP(), _PLAIN)
}
_CAMERAS = 3  # of MolmoAct2


class ByBody:
    """How a connection that asks by HTTP finds its dialect (the protocol DialectChoice)."""

    greeter: Dialect = _PLAIN
    greeting_paths: tuple[str, ...] = ()

    def settle(self, message: Message, greeted: bool, limits: WireLimits = DEFAULT_LIMITS) -> Dialect:
        """The family of the body."""
        family = message.family if isinstance(message, RequestBody) else ""
        return FAMILIES.get(family, _PLAIN)


def read_body(body: bytes | bytearray, path: str, limits: WireLimits, has_plain_errors: bool = False) -> RequestBody:
    """Read a body that came to a path; what is wrong with it is in what was heard. Raises nothing."""
    if path.endswith(_RESET_PATH):
        return RequestBody.of(body, "", Control(RESET, Context(), ends=""))
    context = Context(has_plain_errors=has_plain_errors)
    try:
        if not body:
            raise WireError("", "a JSON map", "no body", SHAPES)
        fields, is_encoded = unwrapped(body, limits)
        family = family_of(fields)
        heard: Heard = FAMILIES[family].read(fields, limits, context._replace(is_encoded=is_encoded))
    except PolicyserveError as error:
        family, heard = _PLAIN.name, Unreadable(error, context)
    except BaseException as error:  # a stranger's bytes: a bug in reading, or no memory, must cost this request only
        family, heard = _PLAIN.name, Unreadable(failed("reading the body raised", error), context)
    if isinstance(heard, Unreadable):
        heard.error.__traceback__ = None  # its frames hold the body
    return RequestBody.of(body, family, heard)


def family_of(fields: Mapping[str, Any]) -> str:
    """The family whose keys a body has; `json` if it has none of theirs."""
    if "prompt" in fields:  # the others' texts have other names
        return Plain.name
    if "domain_id" in fields or isinstance(fields.get("proprio"), str):
        return XVLA.name
    if _is_gr00t(fields.get(OBSERVATION)):
        return Gr00tHTTP.name
    if any(key == "full_image" or ("wrist" in key and "image" in key) for key in fields):
        return OpenVLAOFT.name
    if "num_steps" in fields or sum(key.endswith(CAMERA) for key in fields) >= _CAMERAS:
        return MolmoAct2.name
    return OpenVLA.name if "instruction" in fields else Plain.name


def _is_gr00t(observation: Any) -> bool:
    """Another policy's map may have this name, too."""
    return isinstance(observation, dict) and any(key.startswith((VIDEO, STATE, ANNOTATION)) for key in observation)
