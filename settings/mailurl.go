package settings

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// MailURL is the value of EMAIL_URL: backend, server, login and TLS of a mailer in one line.
// It is smtp://user:password@host:port,
// smtp+starttls:// and smtps:// (TLS from the first byte) likewise, filebased:///path,
// console:, locmem: or dummy:; or what a backend of the program's own has declared, see
// Loader.Schemes. It prints, logs and encodes without its password; a URL of a program's own
// backend with its scheme and host alone, for nobody else knows where its secrets are. The
// zero value is empty.
type MailURL struct {
	target *mailTarget // nil if empty
}

// The ports of RFC 5321, of message submission (RFC 6409), and of submission with TLS
// from the first byte (RFC 8314).
const (
	portPlain    = 25
	portStartTLS = 587
	portTLS      = 465
)

// mailTarget is a MailURL taken apart.
type mailTarget struct {
	text    Secret // as it was written
	shown   string // without its password
	backend string
	server  mailServer // if backend is smtp
	path    string     // if backend is filebased

	custom  *url.URL // if the scheme is not a built-in one
	broken  bool     // and the rest is no URL
	unknown bool     // and no backend has declared it
}

// mailServer is the part of SMTP that a URL can set.
type mailServer struct {
	hosts          Hosts
	port           int
	useTLS, useSSL bool
	user           string
	password       Secret
}

// NewMailURL checks rawURL, which has one of the built-in schemes, and returns it as a
// MailURL. The error never repeats any of it.
func NewMailURL(rawURL string) (MailURL, error) {
	t, err := parseMailURL(strings.TrimSpace(rawURL))
	if err == nil && t.custom != nil {
		err = errMailScheme
	}
	if err != nil {
		return MailURL{}, err
	}
	return MailURL{target: t}, nil
}

// Custom returns the URL taken apart if its scheme is that of a backend of the program's own,
// in lower case, and nil if not. It has all the secrets of the URL, its String too.
func (u MailURL) Custom() *url.URL {
	if u.target == nil || u.target.custom == nil {
		return nil
	}
	c := *u.target.custom
	return &c
}

// Reveal returns the URL as it was written, password included.
func (u MailURL) Reveal() string {
	if u.target == nil {
		return ""
	}
	return u.target.text.Reveal()
}

// String returns the URL with its password hidden.
func (u MailURL) String() string {
	if u.target == nil {
		return ""
	}
	return u.target.shown
}

// GoString is String, for %#v.
func (u MailURL) GoString() string { return u.String() }

// Format prints String under every verb.
func (u MailURL) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, u.String()) }

// MarshalText returns String; encoding/json uses it too.
func (u MailURL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText is NewMailURL, but takes every scheme: which ones there are, a Loader knows.
func (u *MailURL) UnmarshalText(text []byte) error {
	t, err := parseMailURL(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	u.target = t
	return nil
}

var (
	errMailScheme  = errors.New("has to begin with console:, locmem:, dummy:, filebased:, smtp:, smtp+starttls: or smtps:, the last three with // and a host")
	errMailURL     = errors.New("is not a URL; write :, /, ?, #, @ and % in a user name or password as %3A, %2F, %3F, %23, %40 and %25")
	errMailHost    = errors.New("needs the name or the IP address of a host, an IPv6 address in brackets, or several hosts separated by commas with the port after the last")
	errMailPort    = errors.New("has a port that is not a whole number from 1 to 65535, or a : in the user name that should be %3A")
	errMailUser    = errors.New("has an @ with no user name before it")
	errMailPath    = errors.New("needs the full path of a directory and no host, such as filebased:///var/mail")
	errMailPathURL = errors.New("is not a URL; write ?, # and % in the path as %3F, %23 and %25")
	errMailRest    = errors.New("must have nothing after the colon")
	errMailChar    = errors.New("holds a control character; is there a line end in it?")
)

func parseMailURL(text string) (*mailTarget, error) {
	if hasControl(text) {
		return nil, errMailChar
	}
	scheme, rest, ok := strings.Cut(text, ":")
	if !ok {
		return nil, errMailScheme
	}
	t := &mailTarget{text: NewSecret(text), shown: text}
	switch scheme = strings.ToLower(scheme); scheme {
	case "smtp":
		t.server = mailServer{port: portPlain}
	case "smtp+starttls":
		t.server = mailServer{port: portStartTLS, useTLS: true}
	case "smtps":
		t.server = mailServer{port: portTLS, useSSL: true}
	case "filebased":
		t.backend = scheme
		return t, t.setPath(rest)
	case "console", "locmem", "dummy":
		t.backend = scheme
		if rest != "" && rest != "//" {
			return nil, errMailRest
		}
		return t, nil
	default:
		return t, t.setCustom(scheme)
	}
	t.backend = "smtp"
	return t, t.setServer(scheme, rest)
}

// setCustom takes a URL apart of which it is not known what it means. Whether there is such a
// scheme is looked at first, by declared, so that it is what an error is about.
func (t *mailTarget) setCustom(scheme string) error {
	if !isScheme(scheme) {
		return errMailScheme
	}
	u, err := url.Parse(t.text.Reveal())
	if t.broken = err != nil; t.broken {
		u = &url.URL{Scheme: scheme, Opaque: redacted}
	}
	t.backend, t.custom = scheme, u
	t.shown = scheme + ":"
	if u.Host != "" {
		t.shown += "//"
		if u.User != nil {
			t.shown += redacted + "@"
		}
		t.shown += u.Host
	}
	if strings.Trim(u.Opaque+u.Path+u.RawQuery+u.Fragment, "/") != "" {
		t.shown = strings.TrimSuffix(t.shown, "/") + "/" + redacted
	}
	return nil
}

// isScheme wants what RFC 3986, 3.1, does.
func isScheme(s string) bool {
	inner := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune("+-.", r)
	}
	return s != "" && s[0] >= 'a' && s[0] <= 'z' && !strings.ContainsFunc(s, func(r rune) bool { return !inner(r) })
}

func (t *mailTarget) setPath(rest string) error {
	path := strings.TrimPrefix(rest, "//")
	if !strings.HasPrefix(path, "/") || strings.Trim(path, "/") == "" {
		return errMailPath
	}
	path, err := url.PathUnescape(path)
	switch {
	case err != nil || strings.ContainsAny(rest, "?#"):
		return errMailPathURL
	case hasControl(path):
		return errMailChar
	}
	t.path = path
	return nil
}

func (t *mailTarget) setServer(scheme, rest string) error {
	authority, ok := strings.CutPrefix(rest, "//")
	if !ok {
		return errMailScheme
	}
	authority = strings.TrimSuffix(authority, "/")
	if strings.ContainsAny(authority, "/?# ") {
		return errMailURL
	}
	hosts := authority
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		hosts = authority[i+1:]
		if err := t.setUser(authority[:i]); err != nil {
			return err
		}
		user, _, secret := strings.Cut(authority[:i], ":")
		if secret {
			user += ":" + redacted
		}
		authority = user + "@" + hosts
	}
	t.shown = scheme + "://" + authority
	return t.setHosts(hosts)
}

// setUser decodes a user name with or without a password.
func (t *mailTarget) setUser(text string) error {
	user, password, _ := strings.Cut(text, ":")
	user, err := url.PathUnescape(user)
	if err != nil {
		return errMailURL
	}
	if password, err = url.PathUnescape(password); err != nil {
		return errMailURL
	}
	switch {
	case user == "":
		return errMailUser
	case hasControl(user) || hasControl(password):
		return errMailChar
	}
	t.server.user = user
	if password != "" {
		t.server.password = NewSecret(password)
	}
	return nil
}

// setHosts reads hosts separated by commas, with the port of all of them after the
// last.
func (t *mailTarget) setHosts(text string) error {
	list := strings.Split(text, ",")
	last := list[len(list)-1]
	if i := strings.LastIndexByte(last, ':'); i > strings.LastIndexByte(last, ']') {
		list[len(list)-1] = last[:i]
		n, err := strconv.ParseUint(last[i+1:], 10, 16)
		if err != nil || n == 0 {
			return errMailPort
		}
		t.server.port = int(n)
	}
	for _, host := range list {
		if six, ok := strings.CutPrefix(host, "["); ok {
			addr, err := netip.ParseAddr(strings.TrimSuffix(six, "]"))
			if err != nil || !addr.Is6() || !strings.HasSuffix(six, "]") {
				return errMailHost
			}
			host = addr.String()
		} else if strings.Contains(host, ":") || checkHost(host) != nil {
			return errMailHost
		}
		t.server.hosts = append(t.server.hosts, host)
	}
	return nil
}

// variables returns the variables that the URL takes the place of.
func (t *mailTarget) variables() []string {
	switch t.backend {
	case "filebased":
		return []string{"EMAIL_FILE_PATH"}
	case "smtp":
		names := []string{"EMAIL_HOST", "EMAIL_PORT", "EMAIL_USE_TLS", "EMAIL_USE_SSL"}
		if t.server.user != "" {
			names = append(names, "EMAIL_HOST_USER")
		}
		if t.server.password.Reveal() != "" {
			names = append(names, "EMAIL_HOST_PASSWORD")
		}
		return names
	}
	return nil
}
