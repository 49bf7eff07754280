package settings

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/mailpouch/mailpouch/internal/hostname"
)

// Variables that texts name.
const (
	SubmissionVariable = "EMAIL_SUBMISSION_ADDR" // Intake.Submission
	APIVariable        = "EMAIL_API_ADDR"        // Intake.API
	KeysFileVariable   = "EMAIL_API_KEYS_FILE"   // Intake.KeysFile

	submissionCert     = "EMAIL_SUBMISSION_CERTFILE"
	submissionKey      = "EMAIL_SUBMISSION_KEYFILE"
	submissionNetworks = "EMAIL_SUBMISSION_NETWORKS"
	submissionMemory   = "EMAIL_SUBMISSION_MEMORY"
	maxMessageSize     = "EMAIL_MAX_MESSAGE_SIZE"
	apiCert            = "EMAIL_API_CERTFILE"
	apiKey             = "EMAIL_API_KEYFILE"
	apiPlain           = "EMAIL_API_ALLOW_PLAIN"
)

// Listener is an address that mail is taken at over SMTP.
type Listener struct {
	Network string // "tcp" or "unix"
	Address string // host:port, or the path of a socket
	TLS     bool   // from the first byte (RFC 8314, 3.3)
	LMTP    bool   // RFC 2033 instead of SMTP
}

// The schemes of listeners.
const (
	schemeTLS  = "smtps://"
	schemeUnix = "unix://"
	schemeLMTP = "lmtp+unix://"
)

// maxSocket is how long the path of a socket may be (unix(7)): the system says "invalid argument" of a longer one.
const maxSocket = 107

// String writes the listener as EMAIL_SUBMISSION_ADDR has it.
func (l Listener) String() string {
	switch {
	case l.LMTP:
		return schemeLMTP + l.Address
	case l.Network == "unix":
		return schemeUnix + l.Address
	case l.TLS:
		return schemeTLS + l.Address
	}
	return l.Address
}

// IsRemote reports whether other machines can reach the listener.
func (l Listener) IsRemote() bool { return l.Network == "tcp" && isRemoteAddr(l.Address) }

// isRemoteAddr reports whether other machines can reach what listens at host:port. No host is every interface.
func isRemoteAddr(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && (host == "" || hostname.IsRemote(host))
}

// Listeners are the addresses that mail is taken at over SMTP.
type Listeners []Listener

// UnmarshalText reads addresses separated by commas, and names all that cannot be meant.
func (l *Listeners) UnmarshalText(text []byte) error {
	var all Listeners
	var bad []string
	for entry := range strings.SplitSeq(string(text), ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue // a comma at the end, or two of them
		}
		one, err := parseListener(entry)
		switch {
		case err != nil:
			bad = append(bad, err.Error())
		case slices.ContainsFunc(all, func(o Listener) bool { return o.Address == one.Address && !strings.HasSuffix(o.Address, ":0") }):
			bad = append(bad, fmt.Sprintf("%s is named twice", one.Address))
		}
		all = append(all, one)
	}
	if *l = all; len(bad) > 0 {
		return errors.New(strings.Join(bad, "; "))
	}
	return nil
}

// String writes the addresses separated by commas.
func (l Listeners) String() string {
	entries := make([]string, len(l))
	for i, one := range l {
		entries[i] = one.String()
	}
	return strings.Join(entries, ",")
}

func parseListener(entry string) (Listener, error) {
	for _, scheme := range []string{schemeUnix, schemeLMTP} {
		path, ok := strings.CutPrefix(entry, scheme)
		if !ok {
			continue
		}
		if !filepath.IsAbs(path) || len(path) > maxSocket {
			return Listener{}, fmt.Errorf("%q needs the whole path of a socket, of up to %d bytes, such as %s/run/mailpouch/smtp.sock", entry, maxSocket, scheme)
		}
		return Listener{Network: "unix", Address: path, LMTP: scheme == schemeLMTP}, nil
	}
	addr, tls := strings.CutPrefix(entry, schemeTLS)
	if err := checkAddr(addr); err != nil {
		return Listener{}, fmt.Errorf("%q is not a host and a port, such as 127.0.0.1:2525, nor begins with smtps://, unix:// or lmtp+unix://", entry)
	}
	return Listener{Network: "tcp", Address: addr, TLS: tls}, nil
}

// checkAddr refuses what is no host:port to listen on.
func checkAddr(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if host != "" {
		if err := checkHost(host); err != nil {
			return err
		}
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("%q is not a port; it has to be 0 to 65535", port)
	}
	return nil
}

// Networks are addresses of clients.
type Networks []netip.Prefix

// UnmarshalText reads addresses and prefixes separated by commas, and names all that cannot be meant.
func (n *Networks) UnmarshalText(text []byte) error {
	var all Networks
	var bad []string
	for entry := range strings.SplitSeq(string(text), ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue // a comma at the end, or two of them
		}
		one, err := parseNetwork(entry)
		if err != nil {
			bad = append(bad, err.Error())
		}
		all = append(all, one)
	}
	if *n = all; len(bad) > 0 {
		return errors.New(strings.Join(bad, "; "))
	}
	return nil
}

func parseNetwork(entry string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(entry); err == nil && ip.Zone() == "" {
		ip = ip.Unmap()
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(entry)
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a network, such as 192.0.2.7 or 10.1.0.0/16", entry)
	case prefix.Bits() == 0:
		return netip.Prefix{}, fmt.Errorf("%q is everybody, who could send anything in your name: name the networks that you trust", entry)
	case prefix != prefix.Masked():
		return netip.Prefix{}, fmt.Errorf("%q is an address in the network %s: write the one or the other", entry, prefix.Masked())
	}
	return prefix, nil
}

// String writes the networks separated by commas, single addresses without their length.
func (n Networks) String() string {
	entries := make([]string, len(n))
	for i, prefix := range n {
		if entries[i] = prefix.String(); prefix.IsSingleIP() {
			entries[i] = prefix.Addr().String()
		}
	}
	return strings.Join(entries, ",")
}

// On reports whether mail is taken from other programs.
func (i Intake) On() bool { return len(i.Submission) > 0 || i.API != "" }

// check checks what is wrong in itself, whichever program has these settings. size is how big a message may be.
func (i Intake) check(size Size, p *Problems) {
	if len(i.Submission) > 0 && i.Memory < size && !p.has(submissionMemory, maxMessageSize) {
		p.add(submissionMemory, "%s is less than one message may have, which is %s (%s)", i.Memory, size, maxMessageSize)
	}
	if i.API != "" && !p.has(APIVariable) {
		if err := checkAddr(i.API); err != nil {
			p.add(APIVariable, "%q is not a host and a port, such as 127.0.0.1:8026", i.API)
		}
	}
	for _, pair := range []struct{ cert, key, certFile, keyFile string }{
		{submissionCert, submissionKey, i.CertFile, i.KeyFile}, {apiCert, apiKey, i.APICertFile, i.APIKeyFile},
	} {
		switch {
		case pair.certFile != "" && pair.keyFile == "":
			p.add(pair.key, "the certificate in %s needs its key here", pair.cert)
		case pair.certFile == "" && pair.keyFile != "":
			p.add(pair.cert, "the key in %s needs its certificate here", pair.key)
		}
	}
	implicit := func(l Listener) bool { return l.TLS }
	if slices.ContainsFunc(i.Submission, implicit) && i.CertFile == "" && !p.has(submissionCert, SubmissionVariable) {
		p.add(submissionCert, "%s in %s needs a certificate here", schemeTLS, SubmissionVariable)
	}
}

// checkAccess reports addresses that other machines can reach and at which anybody could hand in mail, or nobody, or keys would
// cross the network in clear text, and files that cannot be read.
func (i Intake) checkAccess(p *Problems) {
	if len(i.Submission) > 0 && !p.has(SubmissionVariable, submissionCert, submissionNetworks, KeysFileVariable) {
		i.checkSubmission(p)
	}
	if i.API != "" && !p.has(APIVariable, apiCert, KeysFileVariable) {
		switch {
		case i.KeysFile == "":
			p.add(KeysFileVariable, "%s takes mail from who has a key: name the file of the keys here (worker key new makes one)", APIVariable)
		case isRemoteAddr(i.API) && i.APICertFile == "" && !i.APIPlain:
			p.add(APIVariable, "other machines can reach %s, and keys would go there in clear text: set %s and %s, or an address that only this machine can reach, such as 127.0.0.1:8026; or, behind a proxy that speaks TLS, %s",
				i.API, apiCert, apiKey, apiPlain)
		}
	}
	for _, file := range []struct {
		name, path string
		used       bool
	}{
		{submissionCert, i.CertFile, len(i.Submission) > 0}, {submissionKey, i.KeyFile, len(i.Submission) > 0},
		{apiCert, i.APICertFile, i.API != ""}, {apiKey, i.APIKeyFile, i.API != ""}, {KeysFileVariable, i.KeysFile, i.On()},
	} {
		if !file.used || file.path == "" || p.has(file.name) {
			continue
		}
		if err := canRead(file.path); err != nil {
			p.add(file.name, "cannot be read: %v", err)
		}
	}
}

func (i Intake) checkSubmission(p *Problems) {
	for _, l := range i.Submission {
		switch {
		case l.Network == "unix" || len(i.Networks) > 0:
		case i.KeysFile == "":
			p.add(SubmissionVariable, "nobody could hand in mail at %s: set %s for programs that log in with a key, or %s for those that need not", l, KeysFileVariable, submissionNetworks)
		case l.IsRemote() && i.CertFile == "":
			p.add(SubmissionVariable, "other machines can reach %s, and a key is never taken in clear text: set %s and %s, or %s for programs that need no key, or an address that only this machine can reach, such as 127.0.0.1:2525",
				l, submissionCert, submissionKey, submissionNetworks)
		default:
			continue
		}
		if p.has(SubmissionVariable) {
			return
		}
	}
}

// warn says which settings have no effect.
func (i Intake) warn(sets func(variable string) bool, w *Problems) {
	without := func(needed string, variables ...string) {
		for _, v := range variables {
			if sets(v) {
				w.add(v, "has no effect without %s", needed)
			}
		}
	}
	if len(i.Submission) == 0 {
		without(SubmissionVariable, submissionCert, submissionKey, submissionNetworks, "EMAIL_SUBMISSION_CONNECTIONS",
			"EMAIL_SUBMISSION_CONNECTIONS_PER_ADDRESS", "EMAIL_SUBMISSION_RECIPIENTS", "EMAIL_SUBMISSION_TIMEOUT", submissionMemory)
	}
	if i.API == "" {
		without(APIVariable, apiCert, apiKey, apiPlain)
	}
}
