"""Verifies a webhook: python3 verify.py ID TIMESTAMP SIGNATURES < body"""
import base64, hashlib, hmac, os, sys, time


def verify(secret, id, timestamp, signatures, body):
    if abs(time.time() - int(timestamp)) > 300:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mac = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    want = b"v1," + base64.b64encode(mac)
    return any(hmac.compare_digest(s.encode(), want) for s in signatures.split())


if __name__ == "__main__":
    body = sys.stdin.buffer.read()
    sys.exit(0 if verify(os.environ["EMAIL_WEBHOOK_SECRET"], *sys.argv[1:4], body) else 1)
