"""The page's files, its sentences and its door; loaded with the first request for any of them."""

from __future__ import annotations

import hashlib
import html
import mimetypes
from functools import cache
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from meshnode.app.language import ENGLISH, catalogue, known, of_browser
from meshnode.app.web.session import SESSION_S, Sessions, cookie_name, is_own_origin
from meshnode.app.web.words import STATIC, dictionary
from meshnode.core.words import say

_TYPES: Final = {".js": "text/javascript", ".svg": "image/svg+xml", ".html": "text/html", ".css": "text/css"}
_FRONT: Final = "index.html"


def answer(sessions: Sessions, language: str | None, request: Request) -> Response:
    """One request below /web. The guard has let it in: only `link` needs the bearer token, and was asked for it.
    `language`: what the node is set to, if it is."""
    name = request.path_params.get("name")
    if request.method == "POST":
        return _post(sessions, name or "", request)
    if name is None:
        return RedirectResponse("/web/", 303)
    if name == "enter":
        return _enter(sessions, request)
    if name == "words.json":
        return _words(language, request)
    return _file(name or _FRONT, request)


def _post(sessions: Sessions, name: str, request: Request) -> Response:
    headers = dict(request.scope["headers"])
    if name == "link":
        return JSONResponse(
            {"url": f"http://{request.headers['host']}/web/enter?token={sessions.link()}"}, 201
        )
    if name == "key":
        if (key := sessions.key(headers)) is not None:
            return JSONResponse({"key": key}, 201)
        sentence = say("This browser has no session here: open the page with `meshnode web`.")
        return JSONResponse({"code": "no-session", "error": str(sentence), "exit_code": 1}, 401)
    if name == "leave" and is_own_origin(headers):
        sessions.leave(headers)
        gone = Response(status_code=204)
        gone.delete_cookie(cookie_name(request.headers["host"]), httponly=True, samesite="strict")
        return gone
    raise HTTPException(404)


def _enter(sessions: Sessions, request: Request) -> Response:
    cookie = sessions.enter(request.query_params.get("token", ""))
    if cookie is None:
        return _stale()
    # 303 to an address without the token: what a browser remembers is where it ended up.
    entered = RedirectResponse("/web/", 303)
    entered.set_cookie(
        cookie_name(request.headers["host"]),
        cookie,
        max_age=int(SESSION_S),
        httponly=True,
        samesite="strict",
    )
    return entered


def _stale() -> Response:
    title = html.escape(str(say("This link does not open the page any more")))
    text = html.escape(
        str(
            say(
                "A link works once, and for a minute. Run `meshnode web` again on this machine, it makes a new one."
            )
        )
    )
    page = f"""<!doctype html><html><head><meta charset="utf-8"><title>meshnode</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="stylesheet" href="/web/style.css"></head>
<body><main class="gate"><h1>{title}</h1><p>{text}</p></main></body></html>"""
    return HTMLResponse(page, 403)


def _words(language: str | None, request: Request) -> Response:
    accepted = of_browser(request.headers.get("accept-language", ""))
    language = known(request.query_params.get("lang", "")) or language or accepted or ENGLISH
    answered = JSONResponse(dictionary(catalogue(language)), headers={"Content-Language": language})
    return _kept(answered.body, "application/json", request, language)


@cache
def _read(name: str) -> bytes | None:
    """A file of the page. None: there is none; only what lies in the folder has a name here."""
    found = [file for file in STATIC.iterdir() if file.name == name and file.is_file()]
    return found[0].read_bytes() if found else None


def _file(name: str, request: Request) -> Response:
    data = _read(name)
    if data is None:
        raise HTTPException(404)
    suffix = name[name.rfind(".") :]
    kind = _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    return _kept(data, kind, request)


def _kept(data: bytes | memoryview, kind: str, request: Request, language: str = "") -> Response:
    """What a browser may keep, if it asks each time whether it is still that."""
    tag = f'"{hashlib.sha256(data).hexdigest()[:24]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if language:
        headers["Content-Language"] = language
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(bytes(data), media_type=kind, headers=headers)
