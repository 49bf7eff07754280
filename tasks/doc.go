// Package tasks is the queue between the programs that have mail to send and the
// workers that send it. Both ends meet in Redis, through asynq.
//
// The producer's end is [Queue], a [mailer.Backend] that delivers nothing and
// enqueues everything: one asynq task for each message, or for many that are handed
// over together (QueueConfig.BulkSize). [Options] say how a message waits, and
// [Queue.Cancel] takes it back. The consumer's end is [Worker]: asynq handlers give their
// messages to a few senders, each with one open connection, and each message has its
// result the moment its own fate is known. What could not be delivered is among the
// [DeadLetters]. An [Observer] hears of all that a worker does, and a [Tracer] takes a trace
// through the queue.
//
// All of them take a Redis client, which [Connect] makes of a URL: one server, Sentinel
// or Cluster.
//
// # The promise
//
// What Redis has accepted is delivered to the relay at least once, or is kept as a
// dead letter (an archived task) with its reason. A second delivery is possible
// only when the relay's answer to a complete message was lost, and when a worker or
// Redis died after that answer and before it was recorded.
//
// What happens to a message in each case is decided in one place, with a table on top of
// it: policy.go.
//
// # Big attachments and bodies
//
// What is bigger than QueueConfig.AttachmentThreshold waits in Redis beside the queue,
// each content once, until the last message that needs it is sent or deleted.
package tasks
