package smtp

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/mailpouch/mailpouch/backends/smtp/internal/transport"
)

// extensions are what a server says in its reply to EHLO that it can do.
type extensions struct {
	pipelining bool     // RFC 2920
	chunking   bool     // RFC 3030
	eightBit   bool     // 8BITMIME, RFC 6152
	smtpUTF8   bool     // RFC 6531
	dsn        bool     // RFC 3461
	startTLS   bool     // RFC 3207
	sized      bool     // SIZE, RFC 1870
	size       int64    // the biggest message taken, 0 if not told
	oddSize    string   // what it says behind SIZE, if that can be no limit
	login      bool     // AUTH, RFC 4954, with a mechanism
	auth       []string // its mechanisms
}

// An extension is one that this package knows.
type extension struct {
	keyword string              // in the reply to EHLO
	offered *bool               // what it sets
	params  func(list []string) // reads what follows the keyword; nil: nothing that we need
}

// known are the extensions that this package knows, with what each one sets in e.
//
// To add one, add a field to extensions, an entry here, and its use: a parameter of MAIL or
// RCPT goes into sendMail or sendRcpt (pipeline.go), what a server cannot be given without
// it into refuseUnfit (message.go), a command of its own beside upgrade (dial.go).
func (e *extensions) known() []extension {
	return []extension{
		{"PIPELINING", &e.pipelining, nil},
		{"CHUNKING", &e.chunking, nil},
		{"8BITMIME", &e.eightBit, nil},
		{"SMTPUTF8", &e.smtpUTF8, nil},
		{"DSN", &e.dsn, nil},
		{"STARTTLS", &e.startTLS, nil},
		{"SIZE", &e.sized, e.setSize},
		{"AUTH", &e.login, e.addMechanisms},
	}
}

// takesEightBit reports whether the server takes messages in 8 bit. One that takes SMTPUTF8 must, whether it says so
// or not (RFC 6531, 3.6).
func (e *extensions) takesEightBit() bool { return e.eightBit || e.smtpUTF8 }

// leastSize is the smallest limit that a server can mean: RFC 5321 (4.5.3.1.7) has every server take 64,000 octets, and
// with less than this not even a header would pass.
const leastSize = 1000

// setSize reads the limit, in octets: none and 0 are no limit (RFC 1870, 4). Nor is one that cannot be meant, as in
// "SIZE 35 MB": the server says for itself what is too big for it.
func (e *extensions) setSize(params []string) {
	all := strings.Join(params, " ")
	switch size, err := strconv.ParseInt(all, 10, 64); {
	case all == "" || err == nil && size == 0:
	case err == nil && size >= leastSize:
		e.size = size
	default:
		e.oddSize = transport.Printable(all)
	}
}

// addMechanisms is called for each line with AUTH: some servers have two.
func (e *extensions) addMechanisms(params []string) {
	e.auth = append(e.auth, params...)
	e.login = len(e.auth) > 0
}

// parseExtensions reads the reply to EHLO: its first line is a greeting, each
// other one an extension's keyword and parameters (RFC 5321, 4.1.1.1).
func parseExtensions(text []byte) (ext extensions) {
	known := ext.known()
	_, text, _ = bytes.Cut(text, []byte{'\n'})
	for line := range bytes.Lines(text) {
		// "AUTH=LOGIN" is how it was written before RFC 2554.
		words := strings.Fields(strings.ToUpper(strings.Replace(string(line), "AUTH=", "AUTH ", 1)))
		for _, k := range known {
			if len(words) == 0 || words[0] != k.keyword {
				continue
			}
			*k.offered = true
			if k.params != nil {
				k.params(words[1:])
			}
		}
	}
	return ext
}

// names are the keywords of the extensions, the mechanisms of AUTH left out.
func (e *extensions) names() []string {
	var names []string
	for _, k := range e.known() {
		if *k.offered {
			names = append(names, k.keyword)
		}
	}
	return names
}
