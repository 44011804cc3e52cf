"""A double of an S3-compatible store: lists and reads the files of one folder, checks no signature."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class BucketDouble:
    """One bucket over `folder`, as of its start and after; a context manager. `reads` counts objects read."""

    def __init__(self, bucket: str, folder: Path) -> None:
        self.reads = 0
        double = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                split = urlsplit(self.path)
                name = unquote(split.path).removeprefix(f"/{bucket}").lstrip("/")
                if not name:
                    self._send(double._listing(bucket, folder, parse_qs(split.query).get("prefix", [""])[0]), "xml")
                elif (folder / name).is_file():
                    double.reads += 1
                    self._send((folder / name).read_bytes(), "octet-stream")
                else:
                    self.send_error(404)

            def _send(self, body: bytes, kind: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", f"application/{kind}")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", f'"{len(body)}"')
                self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
                self.end_headers()
                self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    @staticmethod
    def _listing(bucket: str, folder: Path, prefix: str) -> bytes:
        entries = "".join(
            f"<Contents><Key>{escape(name)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f'<ETag>"{size}"</ETag><Size>{size}</Size></Contents>'
            for name, size in sorted(
                (str(file.relative_to(folder)), file.stat().st_size) for file in folder.rglob("*") if file.is_file()
            )
            if name.startswith(prefix)
        )
        return (
            f"<ListBucketResult><Name>{bucket}</Name><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        ).encode()

    def __enter__(self) -> "BucketDouble":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
