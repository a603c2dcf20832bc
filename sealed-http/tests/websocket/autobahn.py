"""Runs the cases of the Autobahn test suite against an echo server: autobahn.py HOST PORT [CASE...]

The suite (autobahntestsuite of PyPI) is written for Python 2. This script uses only its cases, loaded
as Python 3 where the two differ, with texts as characters below 256. The code that drives the cases is
here, and needs nothing else. Prints a line for each case that does not pass, and how many cases had
each result. Exits with 1 if a case failed, and with 3 if the suite is not installed.
"""

import asyncio
import base64
import binascii
import importlib.abc
import importlib.util
import os
import re
import sys
import types
from pathlib import Path

SIDE_BY_SIDE = 8
# The time to wait for a server that closes by itself, in seconds.
PATIENCE = 120


class Hex:
    """`binascii`, which accepts texts."""

    @staticmethod
    def b2a_hex(text):
        return binascii.b2a_hex(to_bytes(text)).decode()


class Utf8Validator:
    def reset(self):
        pass

    def validate(self, text):
        decoder = __import__("codecs").getincrementaldecoder("utf-8")()
        try:
            decoder.decode(to_bytes(text))
        except UnicodeDecodeError:
            return (False, False, 0, 0)
        return (True, decoder.getstate()[0] == b"", 0, 0)


class WebSocketProtocol:
    STATE_CLOSED, STATE_CONNECTING, STATE_CLOSING, STATE_OPEN = range(4)
    CLOSE_STATUS_CODE_NORMAL = 1000
    CLOSE_STATUS_CODE_GOING_AWAY = 1001
    CLOSE_STATUS_CODE_PROTOCOL_ERROR = 1002
    CLOSE_STATUS_CODE_UNSUPPORTED_DATA = 1003
    CLOSE_STATUS_CODE_INVALID_PAYLOAD = 1007


def to_bytes(text):
    return text if isinstance(text, bytes) else text.encode("latin-1")


def plain(value):
    """Accepts texts and bytes, as Python 2 does."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, (list, tuple)):
        return [plain(held) for held in value]
    return value


class Cases(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of the suite, and loads them as Python 3."""

    def __init__(self, folder):
        self.folder = folder

    def find_spec(self, name, path, target=None):
        file = self.folder / f"{name}.py"
        if path is None and re.fullmatch(r"case(\d\w*)?", name) and file.exists():
            return importlib.util.spec_from_loader(name, self, origin=str(file))
        return None

    def exec_module(self, module):
        self.run(Path(module.__spec__.origin), module.__dict__)

    def run(self, file, into):
        # A text that is not ASCII stands for its bytes in the file.
        text = file.read_text(encoding="latin-1")
        text = re.sub(r"\bxrange\b", "range", text).replace("(object, Case, )", "(Case, )")
        text = re.sub(r"\) / (?=self)", ") // ", text)
        text = re.sub(r"^( *)print (.*)$", r"\1print(\2)", text, flags=re.MULTILINE)
        exec(compile(text.replace("import binascii", "from shim import Hex as binascii"), file, "exec"), into)


def load_cases():
    found = importlib.util.find_spec("autobahntestsuite")
    if found is None:
        sys.exit(3)
    for name, members in [("shim", {"Hex": Hex}), ("autobahn", {}), ("autobahn.websocket", {}),
                          ("autobahn.websocket.protocol", {"WebSocketProtocol": WebSocketProtocol}),
                          ("autobahn.websocket.utf8validator", {"Utf8Validator": Utf8Validator})]:
        module = types.ModuleType(name)
        vars(module).update(members)
        sys.modules[name] = module
    folder = Path(found.submodule_search_locations[0]) / "case"
    cases = Cases(folder)
    sys.meta_path.insert(0, cases)
    listed = (folder / "__init__.py").read_text(encoding="utf-8")
    # The server does not support compression, and 9.9 is not a case that the suite lists.
    listed = "\n".join(line for line in listed.splitlines() if not re.search(r"case12|Case1[23]_X|case9_9", line))
    into = {}
    exec(compile(listed, "cases", "exec"), into)
    import case
    case.Case.compare = lambda self, one, other: plain(one) == plain(other)
    return into["Cases"]


class Connection(WebSocketProtocol):
    """A client that does what a case demands, even what no client may do."""

    factory = types.SimpleNamespace(isServer=False)

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.state = self.STATE_OPEN
        self.connectionWasOpen = True
        self.closedByMe = self.droppedByMe = self.failedByMe = self.wasClean = False
        self.remoteCloseCode = self.localCloseReason = None
        self.createWirelog = False
        self.autoFragmentSize = 0
        self.txFrameStats = {}
        self.message = None
        self.loop = asyncio.get_running_loop()

    # The methods that a case calls.

    def sendFrame(self, opcode, payload="", fin=True, rsv=0, mask=None, payload_len=None, chopsize=None, sync=False):
        payload = to_bytes(payload)
        if payload_len is not None and payload:
            payload = (payload * (payload_len // len(payload) + 1))[:payload_len]
        self.txFrameStats[opcode] = self.txFrameStats.get(opcode, 0) + 1
        key = os.urandom(4)
        frame = self.header(opcode, fin, rsv, len(payload), key) + masked(payload, key)
        if chopsize:
            self.loop.create_task(self.chop(frame, chopsize))
        else:
            self.write(frame)

    def sendMessage(self, payload, isBinary=False, fragmentSize=None, sync=False, doNotCompress=False):
        payload, size = to_bytes(payload), fragmentSize or self.autoFragmentSize or None
        pieces = [payload[at:at + size] for at in range(0, len(payload), size)] if size and payload else [payload]
        for number, piece in enumerate(pieces):
            opcode = 0 if number else 2 if isBinary else 1
            self.sendFrame(opcode, piece, fin=number == len(pieces) - 1)

    def beginMessage(self, isBinary=False):
        self.message = 2 if isBinary else 1

    def beginMessageFrame(self, length):
        self.key, self.at = os.urandom(4), 0
        self.write(self.header(self.message, False, 0, length, self.key))

    def sendMessageFrameData(self, payload, sync=False):
        payload = to_bytes(payload)
        turned = self.key[self.at % 4:] + self.key[:self.at % 4]
        self.at += len(payload)
        self.write(masked(payload, turned))

    def endMessage(self):
        self.sendFrame(0, "", fin=True)

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        if self.state != self.STATE_OPEN:
            return
        reason = "" if reasonUtf8 is None else reasonUtf8
        payload = (b"" if code is None else code.to_bytes(2, "big")) + (
            reason.encode() if isinstance(reason, str) and max(reason, default="") > "\xff" else to_bytes(reason))
        self.state = self.STATE_CLOSING
        self.closedByMe = not isReply
        self.sendFrame(8, payload)

    def sendClose(self, code=None, reason=None):
        self.sendCloseFrame(code, reason)

    def closeAfter(self, delay):
        self.loop.call_later(delay, self.sendClose)

    def killAfter(self, delay):
        self.loop.call_later(delay, self.fail)

    def continueLater(self, delay, function, tag=None):
        self.loop.call_later(delay, function)

    def enableWirelog(self, enable):
        pass

    # The methods behind them.

    def header(self, opcode, fin, rsv, length, key):
        size = bytes([0x80 | length]) if length < 126 else (
            b"\xfe" + length.to_bytes(2, "big") if length < 65536 else b"\xff" + length.to_bytes(8, "big"))
        return bytes([fin << 7 | rsv << 4 | opcode]) + size + key

    def write(self, data):
        if not self.writer.is_closing():
            self.writer.write(data)

    async def chop(self, frame, size):
        for at in range(0, len(frame), size):
            self.write(frame[at:at + size])
            await self.writer.drain()

    def fail(self):
        """Sends a close, and drops the connection if the close is not answered."""
        if self.state == self.STATE_OPEN:
            self.sendCloseFrame(1001)
            self.loop.call_later(1, self.drop)
        elif self.state == self.STATE_CLOSING:
            self.drop()

    def drop(self):
        if self.state != self.STATE_CLOSED:
            self.droppedByMe = True
            self.writer.close()

    async def frame(self):
        first, second = await self.reader.readexactly(2)
        length = second & 0x7f
        assert first & 0x70 == 0 and second & 0x80 == 0, "a server's frame is unmasked and has no reserved bits"
        if length > 125:
            length = int.from_bytes(await self.reader.readexactly(2 if length == 126 else 8), "big")
        return first & 0x80, first & 0xf, await self.reader.readexactly(length)

    async def run(self, case):
        case.onOpen()
        kind, parts = None, []
        try:
            while True:
                fin, opcode, payload = await self.frame()
                assert not (self.wasClean or self.remoteCloseCode), "nothing follows a close"
                if opcode == 8:
                    self.remoteCloseCode = int.from_bytes(payload[:2], "big") if payload else None
                    payload[2:].decode()
                    self.wasClean = True
                    if self.state == self.STATE_OPEN:
                        self.sendCloseFrame(self.remoteCloseCode, isReply=True)
                elif opcode == 9:
                    case.onPing(plain(payload))
                elif opcode == 10:
                    case.onPong(plain(payload))
                else:
                    kind = opcode or kind
                    parts.append(payload)
                    if fin:
                        message, parts = b"".join(parts), []
                        case.onMessage(plain(message), kind == 2)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        self.state = self.STATE_CLOSED
        case.onConnectionLost(False)
        self.writer.close()


def masked(payload, key):
    size = len(payload)
    mask = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(mask, "little")).to_bytes(size, "little")


async def run_case(kind, host, port):
    reader, writer = await asyncio.open_connection(host, port, limit=1 << 20)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write((f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), head
    connection = Connection(reader, writer)
    case = kind(connection)
    await asyncio.wait_for(connection.run(case), PATIENCE)
    return case


async def main(host, port, wanted):
    places, counts, failed = asyncio.Semaphore(SIDE_BY_SIDE), {}, []

    async def one(kind):
        name = kind.__name__.removeprefix("Case").replace("_", ".")
        if wanted and name not in wanted:
            return
        async with places:
            try:
                case = await run_case(kind, host, port)
                result = (case.behavior, case.behaviorClose)
                what = f"{case.result} {case.resultClose}"
            except Exception as error:
                result, what = ("FAILED", "FAILED"), repr(error)
        counts[result] = counts.get(result, 0) + 1
        if result[0] not in ("OK", "INFORMATIONAL") or result[1] not in ("OK", "INFORMATIONAL"):
            failed.append(name)
            print(name, *result, what, flush=True)

    await asyncio.gather(*(one(kind) for kind in load_cases()))
    for result, count in sorted(counts.items()):
        print(count, "cases:", *result)
    sys.exit(1 if failed or not counts else 0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
