// Verifies a webhook: node verify.mjs ID TIMESTAMP SIGNATURES < body
import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";

export function verify(secret, id, timestamp, signatures, body) {
  if (!(Math.abs(Date.now() / 1000 - Number(timestamp)) <= 300)) return false;
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  const mac = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest();
  return signatures.split(" ").some((s) => {
    const got = Buffer.from(s.replace(/^v1,/, ""), "base64");
    return got.length === mac.length && timingSafeEqual(got, mac);
  });
}

const [id, timestamp, signatures] = process.argv.slice(2);
process.exit(verify(process.env.EMAIL_WEBHOOK_SECRET, id, timestamp, signatures, readFileSync(0)) ? 0 : 1);
