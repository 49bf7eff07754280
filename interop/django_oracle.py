"""What a message means, according to Django and to Python's email package.

Reads one case a line from stdin:

    {"name": ..., "message": {...}, "rendered": "<base64>"}

message is the JSON form of Mailpouch's EmailMessage and rendered is what
Mailpouch made of it. Writes one line for each case to stdout, the meaning of
the same message as Django renders it and as Mailpouch did:

    {"name": ..., "django": {...}, "ours": {...}}

or {"name": ..., "refused": "why"} where Django refuses the message.
"""

import base64
import email
import email.policy
import json
import sys
from email.header import decode_header, make_header
from email.utils import getaddresses

from django.conf import settings

settings.configure(EMAIL_BACKEND="django.core.mail.backends.dummy.EmailBackend")

from django.core.mail import EmailMultiAlternatives  # noqa: E402

ADDRESS_FIELDS = {"from", "sender", "reply-to", "to", "cc", "resent-from", "resent-to", "resent-cc", "resent-sender"}
CONTENT_FIELDS = {"content-type", "content-transfer-encoding", "mime-version"}


def build(m):
    """The Django message that m describes."""
    headers = dict(m["headers"] or {})
    if m["message_id"] and not any(name.lower() == "message-id" for name in headers):
        headers["Message-ID"] = m["message_id"]
    if m["date"] and not any(name.lower() == "date" for name in headers):
        headers["Date"] = m["date"]
    message = EmailMultiAlternatives(
        m["subject"], m["body"], m["from_email"], m["to"] or [], bcc=m["bcc"] or [], cc=m["cc"] or [],
        reply_to=m["reply_to"] or [], headers=headers)
    message.content_subtype = m["content_subtype"] or "plain"
    message.encoding = m["charset"] or None
    for a in m["alternatives"] or []:
        message.attach_alternative(a["content"], a["mimetype"])
    for a in m["attachments"] or []:
        message.attach(a["filename"] or None, base64.b64decode(a["content"]), a["mimetype"] or None)
    return message


def unfold(value):
    """A header value in one line. Python keeps the line ends of folded values, and a fold after the name."""
    return str(value).replace("\r\n", "").replace("\n", "").lstrip(" \t")


def text(value):
    """A header text as its reader sees it."""
    return str(make_header(decode_header(unfold(value))))


def addresses(values):
    return [[text(name), address] for name, address in getaddresses([unfold(v) for v in values])]


def fields(message):
    """All header fields that say something to a reader."""
    meant = {}
    for name in message.keys():
        key = name.lower()
        if key in CONTENT_FIELDS or key in meant:
            continue
        if key in ADDRESS_FIELDS:
            meant[key] = addresses(message.get_all(name))
        else:
            meant[key] = [text(v) for v in message.get_all(name)]
    return meant


def tree(part):
    """The types, and in the leaves the octets, of a part and those in it."""
    node = {"type": part.get_content_type()}
    if part.get_content_maintype() == "multipart":
        node["parts"] = [tree(p) for p in part.get_payload()]
        return node
    node["filename"] = unfold(part.get_filename("")) or None
    node["disposition"] = part.get_content_disposition()
    node["method"] = part.get_param("method")
    if part.get_content_type() == "message/rfc822":
        inner = part.get_payload(0)
        node["message"] = {"fields": fields(inner), "tree": tree(inner)}
        return node
    payload = part.get_payload(decode=True)
    if part.get_content_maintype() == "text":
        node["text"] = plain_text(payload, part.get_content_charset() or "ascii")
    else:
        node["octets"] = base64.b64encode(payload).decode()
    return node


def plain_text(payload, charset):
    """The text of a part. Its line ends, and whether its last line has one, mean nothing."""
    decoded = payload.decode(charset, "surrogateescape").replace("\r\n", "\n").replace("\r", "\n")
    return decoded[:-1] if decoded.endswith("\n") else decoded


def meaning(rendered):
    message = email.message_from_bytes(rendered)
    defects = [str(d) for part in message.walk() for d in part.defects]
    return {"fields": fields(message), "tree": tree(message), "defects": defects}


def judge(case):
    try:
        theirs = build(case["message"])
        rendered = theirs.message().as_bytes(linesep="\r\n")
        result = {"name": case["name"], "django": meaning(rendered), "ours": meaning(base64.b64decode(case["rendered"] or ""))}
        result["django"]["recipients"] = theirs.recipients()
    except (ValueError, TypeError, LookupError, UnicodeError) as e:
        result = {"name": case["name"], "refused": "%s: %s" % (type(e).__name__, e)}
    return result


def main():
    for line in sys.stdin:
        json.dump(judge(json.loads(line)), sys.stdout)
        sys.stdout.write("\n")


if __name__ == "__main__":
    main()
