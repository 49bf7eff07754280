//go:build !linux

package smtpd

import "syscall"

// onlyOurs does nothing: a socket has the rights that the process's umask leaves until its mode is set.
func onlyOurs(string, string, syscall.RawConn) error { return nil }
