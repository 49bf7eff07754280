"""Sends a mail: send.py smtplib|django PORT SECRET CAFILE [FILE], or send.py lmtp SOCKET - - FILE"""

import smtplib
import ssl
import sys

how, port, secret, ca = sys.argv[1:5]


def by_smtplib():
    """The bytes of a file."""
    with smtplib.SMTP("localhost", int(port), timeout=60) as server:
        server.starttls(context=ssl.create_default_context(cafile=ca))
        server.login("apikey", secret)
        with open(sys.argv[5], "rb") as f:
            refused = server.sendmail("ann@example.com", ["bob@example.org"], f.read(), mail_options=["BODY=8BITMIME"])
        assert not refused, refused


def by_lmtp():
    """The bytes of a file, over a socket."""
    with smtplib.LMTP(port) as server:
        with open(sys.argv[5], "rb") as f:
            refused = server.sendmail("ann@example.com", ["bob@example.org"], f.read())
        assert not refused, refused


def by_django():
    """A mail with everything, over one connection with a second one."""
    from django.conf import settings

    settings.configure(
        EMAIL_BACKEND="django.core.mail.backends.smtp.EmailBackend", EMAIL_HOST="localhost", EMAIL_PORT=int(port),
        EMAIL_HOST_USER="apikey", EMAIL_HOST_PASSWORD=secret, EMAIL_USE_TLS=True, EMAIL_TIMEOUT=60)
    from django.core.mail import EmailMultiAlternatives, get_connection, send_mail

    with get_connection() as connection:
        message = EmailMultiAlternatives(
            "Grüße", ".\nIt works.\n..\n", "Shop <ann@example.com>", ["bob@example.org"], cc=["Carl <carl@example.org>"],
            bcc=["trudy@example.org"], headers={"Message-ID": "<django@example.com>", "Idempotency-Key": "django-1"}, connection=connection)
        message.attach_alternative("<p>Grüße</p>", "text/html")
        message.attach("größe.bin", bytes([0, 1, 2, 13, 10, 46, 13, 10, 255]), "application/octet-stream")
        assert message.send() == 1
        assert send_mail("plain", "It works.", "ann@example.com", ["bob@example.org"], connection=connection) == 1


{"smtplib": by_smtplib, "lmtp": by_lmtp, "django": by_django}[how]()
