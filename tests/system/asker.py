"""Asks as systemd does, from within a unit's cgroup, what it is told to ask, and says what each answer was.

Its orders come in lines over the socket sys.argv[1], of a single connection:
    ask NUMBER UNIT CREDENTIAL FILE     FILE holds the right value; "-": no value is right here
    slow NUMBER UNIT CREDENTIAL FILE    the same, but reads no more than a little of it
    go NUMBER                           and now the rest
    stranger NUMBER                     connects from no address, as programs do that are not systemd
    drop NUMBER                         lets that go, which must have got nothing, not even an end
Its words to that: "NUMBER asked" when the connection stands, "NUMBER right|refused|reset|..." when it has ended. Of a
stranger: "NUMBER held" when it was let go, or what came instead of nothing, as soon as it comes.
"""
import os
import selectors
import socket
import sys

LIMIT = 1 << 20


def judge(answer, right):
    if len(answer) > LIMIT:
        return "refused"
    if not answer:
        return "EMPTY"
    if answer == right:
        return "right"
    length = len(answer)
    if not answer.strip(b"\0"):
        return f"CUT OFF: {length} zero bytes of a refusal"
    if right and right.startswith(answer):
        return f"CUT OFF: the first {length} of {len(right)} bytes"
    if right and answer == right + right:
        return "TWICE: the value and once more the value"
    zeros = length - len(answer.lstrip(b"\0"))
    return f"WRONG: {length} bytes, of which {zeros} leading zeros, then {bytes(answer[zeros : zeros + 40])!r}"


def ask(number, unit, credential, file, most=LIMIT):
    right = None if file == "-" else open(file, "rb").read()
    asker = socket.socket(socket.AF_UNIX)
    asker.bind("\0%016x/unit/%s/%s" % (int(number), unit, credential))
    asker.connect("/run/opnix/creds.sock")
    asker.shutdown(socket.SHUT_WR)
    waiting.register(asker, selectors.EVENT_READ, (number, bytearray(), right, most))
    say(f"{number} asked")


def stranger(number):
    asker = socket.socket(socket.AF_UNIX)
    asker.connect("/run/opnix/creds.sock")
    asker.shutdown(socket.SHUT_WR)
    strangers[number] = asker
    waiting.register(asker, selectors.EVENT_READ, (number,))
    say(f"{number} asked")


def drop(number):
    # Not there any more is what has been told already.
    if number in strangers and not overhear(strangers[number], number):
        leave(number, "held")


def overhear(asker, number):
    try:
        part = asker.recv(LIMIT, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except ConnectionResetError:
        leave(number, "RESET")
    else:
        leave(number, f"BYTES: {len(part)}, {part[:40]!r}" if part else "EMPTY")
    return True


def leave(number, verdict):
    asker = strangers.pop(number)
    waiting.unregister(asker)
    asker.close()
    say(f"{number} {verdict}")


def go(number):
    if number in paused:
        asker, answer, right = paused.pop(number)
        waiting.register(asker, selectors.EVENT_READ, (number, answer, right, LIMIT))
        return
    # It has not had its little yet.
    for key in list(waiting.get_map().values()):
        if key.data is not None and key.data[0] == number:
            waiting.modify(key.fileobj, selectors.EVENT_READ, (*key.data[:3], LIMIT))


def read(asker, number, answer, right, most):
    try:
        part = asker.recv(most)
    except ConnectionResetError:
        verdict = "reset"
    else:
        answer += part
        if part and most < LIMIT:
            waiting.unregister(asker)
            paused[number] = (asker, answer, right)
        if part:
            return
        verdict = judge(answer, right)
    waiting.unregister(asker)
    asker.close()
    say(f"{number} {verdict}")


def say(line):
    orders.sendall(line.encode() + b"\n")


listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1] + ".new")
listener.listen(1)
os.rename(sys.argv[1] + ".new", sys.argv[1])
orders, _ = listener.accept()
waiting = selectors.DefaultSelector()
paused = {}
strangers = {}
waiting.register(orders, selectors.EVENT_READ)
unread = b""
while True:
    for key, _ in waiting.select():
        if key.data is not None:
            (overhear if len(key.data) == 1 else read)(key.fileobj, *key.data)
            continue
        part = orders.recv(4096)
        if not part:
            sys.exit()
        *lines, unread = (unread + part).split(b"\n")
        for line in lines:
            match line.decode().split(" "):
                case ["ask", *question]:
                    ask(*question)
                case ["slow", *question]:
                    ask(*question, most=1000)
                case ["go", number]:
                    go(number)
                case ["stranger", number]:
                    stranger(number)
                case ["drop", number]:
                    drop(number)
