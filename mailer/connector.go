package mailer

import "context"

// Connector is implemented by backends that log in, or that open connections not only in Open but
// also while they send: one that was full, or has broken, is replaced in the middle of a batch.
// Through it the owner of several backends for the same next hop decides when each of them may
// open a connection. For a backend that is no Connector only Open can be held back.
type Connector interface {
	// ConnectVia makes the backend open each connection, login included, in a call of connect
	// inside via. The error of via counts as that of connecting: if it did not call connect, no
	// connection is opened. via may wait, until ctx ends. ConnectVia must be called before
	// the backend is used.
	ConnectVia(via func(ctx context.Context, connect func() error) error)

	// Account names the server and the user whom the backend logs in as, without a password.
	// It is empty if the backend does not log in.
	Account() string
}
