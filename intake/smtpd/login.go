package smtpd

import (
	"bytes"
	"encoding/base64"
	"strings"
)

// ask sends a challenge to a client that logs in, and returns its answer. An error is one of the connection.
type ask func(challenge string) (answer string, err error)

// Replies to a login.
const (
	replyLoggedIn reply = "235 2.7.0 Authentication successful"
	replyBadLogin reply = "535 5.7.8 Authentication credentials invalid"
	replyNotCoded reply = "501 5.5.2 Cannot decode base64"
	replyGaveUp   reply = "501 5.7.0 Authentication cancelled"
)

// readLogin has a client log in by PLAIN (RFC 4616) or LOGIN (draft-murchison-sasl-login), and returns its password. The user name is not
// looked at, so that a program keeps the one it has. arg is what stands behind AUTH: the mechanism, and maybe the
// first answer (RFC 4954, 4).
func readLogin(arg string, ask ask) (password string, r reply, err error) {
	mechanism, initial, has := strings.Cut(arg, " ")
	d := dialog{ask: ask, initial: strings.TrimLeft(initial, " "), has: has} // Windows Mail writes two blanks
	switch strings.ToUpper(mechanism) {
	case "PLAIN":
		whole := d.answer("")
		parts := bytes.Split(whole, []byte{0})
		if d.done() && len(parts) != 3 {
			d.reply = "501 5.5.2 The answer is not that of PLAIN"
		}
		if d.done() {
			password = string(parts[2])
		}
	case "LOGIN":
		d.answer("Username:")
		password = string(d.answer("Password:"))
	default:
		d.reply = "504 5.5.4 The mechanisms are PLAIN and LOGIN"
	}
	return password, d.reply, d.err
}

// dialog is a login under way. It goes on until it has a reply or an error.
type dialog struct {
	ask     ask
	initial string
	has     bool // initial, which is not answered yet
	reply   reply
	err     error
}

func (d *dialog) done() bool { return d.reply == "" && d.err == nil }

// answer is the client's answer to a challenge.
func (d *dialog) answer(challenge string) []byte {
	if !d.done() {
		return nil
	}
	coded := d.initial
	if d.has {
		if d.has = false; coded == "=" {
			return nil // an empty one
		}
	} else if coded, d.err = d.ask(base64.StdEncoding.EncodeToString([]byte(challenge))); d.err != nil {
		return nil
	}
	if coded == "*" {
		d.reply = replyGaveUp
		return nil
	}
	answer, err := base64.StdEncoding.DecodeString(coded)
	if err != nil {
		d.reply = replyNotCoded
	}
	return answer
}
