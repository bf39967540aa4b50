"""Debian's Chromium, driven over a pipe (the DevTools protocol), so that a page is used as a person would use it."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--remote-debugging-pipe",
)  # fmt: skip


class Browser:
    """One page in a browser; use as a context."""

    def __init__(self, profile: Path, width: int = 900, height: int = 900) -> None:
        program = next(
            (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
        )
        if program is None:
            pytest.skip("no chromium here; 'apt-get install chromium' lets this test use the page in a browser")
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        command = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        told = [program, *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", command, *told], pass_fds=(theirs_in, theirs_out), stderr=subprocess.DEVNULL
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._count, self._rest, self._session = 0, b"", None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)
        os.close(self._in)
        os.close(self._out)

    def go(self, address: str) -> None:
        """Open an address."""
        self._call("Page.navigate", url=address)

    def sees(self, script: str) -> Any:
        """The value of a JavaScript expression on the page."""
        told = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def until(self, script: str, seconds: float = 60) -> Any:
        """The value of an expression as soon as it is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := self.sees(script):
                return value
            time.sleep(0.05)
        raise AssertionError(f"never true: {script}; the page says {self.sees('document.body.innerText')!r}")

    def on_paper(self, width: int) -> None:
        """The page as it is printed, so many pixels between its margins (A4 less 14 mm on both sides: 688)."""
        self._call("Emulation.setEmulatedMedia", media="print")
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)

    def press(self, key: str, text: str = "") -> None:
        """A key, down and up."""
        code = {"ArrowLeft": 37, "ArrowRight": 39, "Enter": 13, " ": 32}.get(key, 0)
        told = {"key": key, "windowsVirtualKeyCode": code, "nativeVirtualKeyCode": code}
        self._call("Input.dispatchKeyEvent", type="keyDown", text=text, **told)
        self._call("Input.dispatchKeyEvent", type="keyUp", **told)

    def write(self, text: str) -> None:
        """Text into what has the focus."""
        self._call("Input.insertText", text=text)

    def picture(self, file: Path) -> None:
        """A screenshot."""
        import base64

        file.write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                piece = os.read(self._in, 1 << 16)
                assert piece, "the browser has gone"
                self._rest += piece
            line, _, self._rest = self._rest.partition(b"\0")
            told = json.loads(line)
            if told.get("id") == self._count:
                assert "error" not in told, told["error"]
                return told["result"]
