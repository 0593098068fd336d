"""Sends one message to one place. Runs in a process of its own: the agent never loads TLS, nor reads an answer.

Errors contain neither addresses nor secrets: they go into the journal.
"""

from __future__ import annotations

import http.client
import json
import smtplib
import ssl
from collections.abc import Mapping
from email.message import EmailMessage
from urllib.parse import urlsplit

import msgspec

from dom0.agent.alerts import Message
from dom0.errors import Dom0Error
from dom0.plan.desired import Notify

WITHIN = 20.0  # seconds for each answer
SMTPS = 465


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    place: str  # ntfy, webhook or mail
    machine: str
    message: Message
    notify: Notify
    secrets: Mapping[str, str] = {}


def deliver(delivery: Delivery) -> None:
    """Raises Dom0Error."""
    try:
        match delivery.place:
            case "ntfy":
                _ntfy(delivery)
            case "webhook":
                _webhook(delivery)
            case "mail":
                _mail(delivery)
    except (OSError, http.client.HTTPException, smtplib.SMTPException, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise Dom0Error(f"{delivery.place}: {said}") from None


def _ntfy(delivery: Delivery) -> None:
    message = delivery.message
    headers = {
        "Title": " ".join(message.title.split()).encode(),
        "Priority": "high" if message.is_bad else "default",
        "Tags": "warning" if message.is_bad else "white_check_mark",
    }
    _post("ntfy", delivery.notify.ntfy, message.text.encode(), headers, delivery.secrets.get("NTFY_TOKEN", ""))


def _webhook(delivery: Delivery) -> None:
    message = delivery.message
    document = {
        "machine": delivery.machine,
        "title": message.title,
        "text": message.text,
        "time": message.time,
        "problems": msgspec.to_builtins(message.problems),
        "over": msgspec.to_builtins(message.over),
    }
    address = delivery.secrets.get("WEBHOOK_URL") or delivery.notify.webhook
    headers = {"Content-Type": "application/json"}
    _post("webhook", address, json.dumps(document).encode(), headers, delivery.secrets.get("WEBHOOK_TOKEN", ""))


def _post(place: str, address: str, body: bytes, headers: Mapping[str, str | bytes], token: str) -> None:
    """No redirect is followed: it could lead a token elsewhere."""
    to = urlsplit(address)
    if not to.hostname or to.scheme not in ("http", "https"):
        raise Dom0Error(f"{place}: its address is none")
    kind = http.client.HTTPSConnection if to.scheme == "https" else http.client.HTTPConnection
    connection = kind(to.hostname, to.port, timeout=WITHIN)
    bearer = {"Authorization": f"Bearer {token}"} if token else {}
    target = (to.path or "/") + (f"?{to.query}" if to.query else "")
    try:
        connection.request("POST", target, body, {**headers, **bearer})
        status = connection.getresponse().status
    finally:
        connection.close()
    if not http.client.OK <= status < http.client.MULTIPLE_CHOICES:
        raise Dom0Error(f"{place}: it answered with status {status}")


def _mail(delivery: Delivery) -> None:
    mail, secrets = delivery.notify, delivery.secrets
    letter = EmailMessage()
    letter["Subject"] = " ".join(delivery.message.title.split())
    letter["From"], letter["To"] = mail.mail_from, ", ".join(mail.mail_to)
    letter.set_content(f"{delivery.message.text}\n")
    host, _, port = mail.mail_server.partition(":")
    user = secrets.get("SMTP_USER", "")
    if int(port or 0) == SMTPS:
        server: smtplib.SMTP = smtplib.SMTP_SSL(host, SMTPS, timeout=WITHIN, context=ssl.create_default_context())
    else:
        server = smtplib.SMTP(host, int(port or 25), timeout=WITHIN)
    with server:
        server.ehlo()
        if server.has_extn("starttls"):
            server.starttls(context=ssl.create_default_context())
        elif user and not isinstance(server, smtplib.SMTP_SSL):
            raise Dom0Error("mail: the server has no TLS, and is not given a password without")
        if user:
            server.login(user, secrets.get("SMTP_PASSWORD", ""))
        server.send_message(letter)
