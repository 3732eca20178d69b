#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the hand-made part of the corpora of the HTTP and URL targets. usage: corpus_http.py"""

import pathlib

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"
HOST = "Host: h\r\n"
POST = "POST /v1/forks/ab/read HTTP/1.1\r\n" + HOST
CHUNKED = POST + "Transfer-Encoding: chunked\r\n\r\n"

REQUESTS = {
    "get": "GET /v1/manifests?count=3&x=%20 HTTP/1.1\r\n" + HOST + "\r\n",
    "pipelined": ("GET /a HTTP/1.1\r\n" + HOST + "\r\n") * 2 + POST + "Content-Length: 2\r\n\r\nabGET / HT",
    "headers": "HEAD /v1/files/a%2fb HTTP/1.1\r\n" + HOST + "Authorization: Bearer t\r\nAccept: a\r\n"
    "Accept: b\r\nRange: bytes=5-9\r\nIf-Range: \"e\"\r\nIf-None-Match: \"e\"\r\n\r\n",
    "body": POST + "Content-Type: application/msgpack\r\nContent-Length: 5\r\n\r\nhello",
    "chunked": CHUNKED + "3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
    "chunked_bare_lf": CHUNKED + "0\r\n\n",
    "trailers": CHUNKED + "0\r\nX: y\r\n\r\n",
    "both_lengths": POST + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "expect": POST + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
    "close": "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n",
    "absolute": "GET http://h:1/v1/status?x HTTP/1.1\r\n" + HOST + "\r\n",
    "dots": "GET /v1/files/%2e%2E/x HTTP/1.1\r\n" + HOST + "\r\n",
    "fold": "GET / HTTP/1.1\r\n" + HOST + "X: a\r\n b\r\n\r\n",
    "upgrade": "GET / HTTP/1.1\r\n" + HOST + "Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "http2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "rtsp": "OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n",
    "suffix": "GET / HTTP/1.1\r\n" + HOST + "Range: bytes=-500\r\n\r\n",
}

RESPONSES = {
    "ok": "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: \"x\"\r\nContent-Type: a/b\r\n\r\nok",
    "pipelined": "HTTP/1.1 206 P\r\nContent-Length: 1\r\nContent-Range: bytes 0-0/9\r\n\r\nx" * 3,
    "no_body": "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 204 N\r\n\r\nHTTP/1.1 304 N\r\nContent-Length: 9\r\n\r\n",
    "chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "busy": "HTTP/1.1 429 B\r\nRetry-After: 3\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    "short_status": "HTTP/1.1 1 4 N\r\nContent-Length: 9\r\n\r\n",
    "to_the_end": "HTTP/1.0 200 OK\r\n\r\nabc",
    "switch": "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nabc",
}

URLS = {
    "http": "http://host-1.example:7117/",
    "ipv6": "http://[fe80::1%25eth0]:1",
    "file": "file:///models/x",
    "relative": "file://./x",
    "user": "http://user:pass@host",
    "https": "https://host",
    "path": "http://host/v1",
    "listen": "127.0.0.1:0",
    "listen6": "[::]:7117",
    "port": ":80",
}


def write(target, name, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def main():
    for name, text in REQUESTS.items():
        write("http_request", name, b"\x06" + text.encode())
    for name, text in RESPONSES.items():
        write("http_response", name, b"\x06" + text.encode())
        write("http_response", f"{name}_head", b"\x46" + text.encode())
    for name, text in URLS.items():
        write("url", name, text.encode())


if __name__ == "__main__":
    main()
