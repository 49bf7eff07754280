// Package intake takes mail from programs in any language: it knows who may hand in what, and gives it to the queue. The ways
// in are smtpd, a submission server, and httpapi, a JSON API.
//
//	client ── SMTP ──> smtpd   ─┐
//	client ── HTTP ──> httpapi ─┴─> Submitter ──> tasks.Queue
//
// A client shows the secret of a Key, which says what it may do. The keys are in a file that has their hashes alone. What was
// handed in under a key has the key's tag, by which the message stays its client's: no other one sees it, cancels it or
// changes when it is due.
//
// That a client was told that its message is accepted means that Redis has it: it is under the promise from then on.
package intake
