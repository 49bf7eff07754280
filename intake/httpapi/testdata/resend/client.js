// What a program does that has Resend's SDK, which finds the API by RESEND_BASE_URL and the key by RESEND_API_KEY.
import { Resend } from "resend";

const resend = new Resend();
const hello = { from: "Shop <shop@example.com>", to: "ann@example.net", subject: "Hello", html: "<b>It works.</b>" };
const results = {};

results.sent = await resend.emails.send({
  ...hello,
  to: ["ann@example.net", "Bob <bob@example.net>"],
  cc: "carl@example.net",
  bcc: ["dora@example.net"],
  replyTo: "help@example.com",
  text: "It works.",
  headers: { "X-Entity-Ref-ID": "7" },
  tags: [{ name: "category", value: "confirm_email" }],
  attachments: [
    { filename: "a.txt", content: Buffer.from("a file") },
    { filename: "b.txt", content: Buffer.from("another").toString("base64"), contentType: "text/x-b" },
    { filename: "logo.png", content: Buffer.from([1, 2, 3]), contentId: "logo" },
  ],
});
results.got = await resend.emails.get(results.sent.data.id);

results.keyed = await resend.emails.send(hello, { idempotencyKey: "welcome/7" });
results.again = await resend.emails.send(hello, { idempotencyKey: "welcome/7" });
results.other = await resend.emails.send({ ...hello, subject: "Other" }, { idempotencyKey: "welcome/7" });

results.scheduled = await resend.emails.create({ ...hello, scheduledAt: "in 1 min" });
results.updated = await resend.emails.update({ id: results.scheduled.data.id, scheduledAt: "2099-12-24T18:00:00.000Z" });
results.later = await resend.emails.get(results.scheduled.data.id);
results.cancelled = await resend.emails.cancel(results.scheduled.data.id);
results.twice = await resend.emails.cancel(results.scheduled.data.id);

const batch = [1, 2, 3].map((i) => ({ ...hello, to: `u${i}@example.net` }));
results.batch = await resend.batch.send(batch);
results.keyedBatch = await resend.batch.send(batch, { idempotencyKey: "batch/7" });
results.batchAgain = await resend.batch.send(batch, { idempotencyKey: "batch/7" });
results.strict = await resend.batch.send([hello, { ...hello, to: "nobody@" }]);
results.permissive = await resend.batch.send([hello, { ...hello, to: "nobody@" }], { batchValidation: "permissive" });

results.template = await resend.emails.send({ to: "ann@example.net", template: { id: "welcome" } });
results.path = await resend.emails.send({ ...hello, attachments: [{ filename: "a", path: "https://example.com/a" }] });
results.listed = await resend.emails.list();
results.wrongKey = await new Resend("mp_unknown").emails.send(hello);

console.log(JSON.stringify(results));
