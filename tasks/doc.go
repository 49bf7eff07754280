// Package tasks is the queue between the programs that have mail to send and the
// workers that send it. Both ends meet in Redis, through asynq.
//
// The producer's end is [Queue], a [mailer.Backend] that delivers nothing and
// enqueues everything: one asynq task for each message. The consumer's end is
// [Worker]: asynq handlers give their messages to a few senders, each with one open
// connection, and every task is finished the moment its own message's fate is known.
//
// # The promise
//
// What Redis has accepted is delivered to the relay at least once, or is kept as a
// dead letter (an archived task) with its reason. A second delivery is possible
// only when the relay's answer to a complete message was lost, and when a worker or
// Redis died after that answer and before it was recorded.
//
// What happens to a message in each case is decided in one place: policy.go.
//
// # Big attachments and bodies
//
// What is bigger than QueueConfig.AttachmentThreshold waits in Redis beside the queue,
// each content once, until the last message that needs it is sent or deleted: blobs.go.
package tasks
