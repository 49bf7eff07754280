// BullMQ and Nodemailer with a pool of connections, as people use them in Node.js.
//
//   node peer.js fill REDIS MAILS MAIL                       adds jobs; MAIL is {"from", "subject", "body"} as JSON
//   node peer.js work REDIS HOST:PORT CONNECTIONS CONCURRENCY  sends them from SIGUSR2 on, until it is killed
import { Queue, Worker } from 'bullmq'
import { Redis } from 'ioredis'
import nodemailer from 'nodemailer'

const name = 'mails'
const [what, url, ...args] = process.argv.slice(2)
const connection = new Redis(url, { maxRetriesPerRequest: null })

async function fill (mails, mail) {
  const queue = new Queue(name, { connection, streams: { events: { maxLen: 100 } } })
  for (let i = 0; i < mails; i += 1000) {
    const jobs = []
    for (let j = i; j < Math.min(i + 1000, mails); j++) {
      jobs.push({ name: 'mail', data: { ...mail, to: `u${j}@example.com` }, opts: { removeOnComplete: true, attempts: 25 } })
    }
    await queue.addBulk(jobs)
  }
  await queue.close()
  await connection.quit()
}

async function work (addr, connections, concurrency) {
  const [host, port] = addr.split(':')
  const transport = nodemailer.createTransport({
    host, port, name: 'peer.example', ignoreTLS: true, pool: true, maxConnections: connections, maxMessages: Infinity
  })
  const send = ({ data }) => transport.sendMail({ from: data.from, to: data.to, subject: data.subject, text: data.body })
  const worker = new Worker(name, async job => { await send(job) }, { connection, concurrency, autorun: false })
  worker.on('error', console.error)
  worker.on('failed', (_, err) => console.error(err))
  await worker.waitUntilReady()
  process.on('SIGUSR2', () => worker.run())
  await connection.set(`bench:ready:${process.pid}`, 1) // the benchmark waits for it
}

if (what === 'fill') {
  await fill(Number(args[0]), JSON.parse(args[1]))
} else {
  await work(args[0], Number(args[1]), Number(args[2]))
}
