// Sends a mail with an attachment by Nodemailer: node send.js PORT SECRET CAFILE
import { readFileSync } from 'node:fs';
import { createTransport } from 'nodemailer';

const [port, secret, ca] = process.argv.slice(2);
const transport = createTransport({
  host: '127.0.0.1', port, requireTLS: true, auth: { user: 'apikey', pass: secret },
  tls: { ca: readFileSync(ca), servername: 'localhost' },
});
const info = await transport.sendMail({
  from: 'Shop <ann@example.com>', to: 'bob@example.org', cc: 'Carl <carl@example.org>', bcc: 'trudy@example.org',
  subject: 'Grüße', text: '.\nIt works.\n..\n', html: '<p>Grüße</p>', messageId: '<nodemailer@example.com>',
  attachments: [{ filename: 'größe.bin', content: Buffer.from([0, 1, 2, 13, 10, 46, 13, 10, 255]) }],
  headers: { 'Idempotency-Key': 'nodemailer-1', 'X-Mailpouch-Tag': 'node' },
});
console.log(info.response);
transport.close();
