"""Hands a mail in over SMTP: python3 send.py HOST PORT < secret"""
import smtplib, sys
from email.message import EmailMessage

message = EmailMessage()
message["From"] = "Shop <shop@example.com>"
message["To"] = "ann@example.org"
message["Subject"] = "Your order"
message["Idempotency-Key"] = "order-1234"  # handed in twice, it is sent once
message.set_content("It is on its way.\n")

with smtplib.SMTP(sys.argv[1], int(sys.argv[2])) as server:
    # From another machine: server.starttls(context=ssl.create_default_context())
    server.login("any", sys.stdin.readline().strip())
    server.send_message(message)
