// Package wire is what a mail looks like in Redis: the payload of a task, the results and
// records that a worker leaves beside it, and the names of queues, keys and fields that are
// ours. Whoever writes or reads any of that does it here, so that there is one writer and one
// reader of each format.
//
// A task is asynq's. Its payload is ours:
//
//	{"version":1,"due_at":"...",          Meta: what is true of the message in the queue
//	 "blobs":[{"sha256":"..."}],          contents that wait beside the queue
//	 "message":{"subject":"...",...}}     the message, without those contents
//
// A bulk task has such a payload a line for each of its messages, which are known as
// <task>.<index>. While a worker has a task, and until it has ended, asynq's record of it has
// fields of ours too: what has become of each message.
//
// The formats are a contract between versions of the program: a worker that was upgraded
// reads what older producers have written.
package wire
