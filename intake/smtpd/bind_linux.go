package smtpd

import "syscall"

// onlyOurs has a socket belong to its owner alone from the moment when its file is there: Linux gives that the rights of the
// socket. Otherwise, whoever is quick could open it before its mode is set, and be trusted.
func onlyOurs(_, _ string, c syscall.RawConn) error {
	var failed error
	if err := c.Control(func(fd uintptr) { failed = syscall.Fchmod(int(fd), 0o600) }); err != nil {
		return err
	}
	return failed
}
