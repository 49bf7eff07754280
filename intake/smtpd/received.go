package smtpd

import (
	"net/netip"
	"time"

	"github.com/mailpouch/mailpouch/internal/hostname"
)

// ReceivedSize is more than a Received field of ours has, in bytes.
const ReceivedSize = 1000

// received is what the Received field of a message says (RFC 5321, 4.4).
type received struct {
	helo string     // what the client calls itself
	from netip.Addr // the zero Addr for a unix socket
	by   string     // our name
	with string     // the protocol (RFC 3848, RFC 6531, 4.3)
	id   string
	at   time.Time
}

// String is the field. It says what Postfix says: the name that the client has given and its address, but not who has logged in.
func (r received) String() string {
	client := "unknown"
	if hostname.IsASCII(r.helo) || hostname.IsAddressLiteral(r.helo) {
		client = r.helo
	}
	if r.from.IsValid() {
		client += " (" + literal(r.from) + ")"
	}
	return "Received: from " + client + "\r\n\tby " + r.by + " (Mailpouch) with " + r.with + " id " + r.id +
		";\r\n\t" + r.at.Format(time.RFC1123Z) + "\r\n"
}

// literal is an address as RFC 5321, 4.1.3, writes it.
func literal(addr netip.Addr) string {
	if addr.Is6() {
		return "[IPv6:" + addr.WithZone("").String() + "]"
	}
	return "[" + addr.String() + "]"
}

// protocol is the name of the protocol by which a message has come.
func protocol(lmtp, extended, utf8, tls, login bool) string {
	name := "SMTP"
	if lmtp {
		name = "LMTP"
	}
	switch {
	case utf8:
		name = "UTF8" + name
	case extended && !lmtp:
		name = "E" + name
	case !extended:
		return name
	}
	if tls {
		name += "S"
	}
	if login {
		name += "A"
	}
	return name
}
