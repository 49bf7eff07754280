package settings

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// URL is the address of a Redis. It prints, logs and encodes without its password.
// The zero value is empty.
type URL struct {
	text *string // a pointer for the same reason as in Secret
}

// NewURL checks rawURL and returns it as a URL. The error never repeats any of it.
func NewURL(rawURL string) (URL, error) {
	if _, err := splitURL(rawURL); err != nil {
		return URL{}, err
	}
	return URL{text: &rawURL}, nil
}

// Reveal returns the URL as it was written, password included.
func (u URL) Reveal() string {
	if u.text == nil {
		return ""
	}
	return *u.text
}

// String returns the URL with its password hidden.
func (u URL) String() string {
	if u.Reveal() == "" {
		return ""
	}
	parts, _ := splitURL(u.Reveal()) // NewURL has seen that it can be split
	return parts.redact()
}

// GoString is String, for %#v.
func (u URL) GoString() string { return u.String() }

// Format prints String under every verb.
func (u URL) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, u.String()) }

// MarshalText returns String; encoding/json uses it too.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText is NewURL.
func (u *URL) UnmarshalText(text []byte) error {
	parsed, err := NewURL(string(text))
	if err != nil {
		return err
	}
	*u = parsed
	return nil
}

// urlParts is a URL with several hosts taken apart. net/url is asked about one host
// at a time: whether it takes a list of them depends on the version of Go.
type urlParts struct {
	scheme string
	user   string // "name:password@" or ""
	hosts  string
	path   string // with its slash
	query  url.Values
}

var (
	errURLCharacter = errors.New("is not a URL; write /, ?, #, @ and % in a password as %2F, %3F, %23, %40 and %25")
	errSocket       = errors.New("needs the path of a socket and no host, such as unix:///run/redis.sock")
)

func splitURL(rawURL string) (urlParts, error) {
	scheme, rest, _ := strings.Cut(rawURL, "://")
	if !slices.Contains([]string{"redis", "rediss", "unix", "redis-sentinel", "rediss-sentinel"}, scheme) {
		return urlParts{}, errors.New("has to begin with redis://, rediss://, unix://, redis-sentinel:// or rediss-sentinel://")
	}
	authority, tail := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, tail = rest[:i], rest[i:]
	}
	// An @ or a # after the hosts is most likely the end of a password that is not
	// encoded: what stands before it would be taken, and printed, as a host.
	if strings.ContainsAny(tail, "@#") {
		return urlParts{}, errURLCharacter
	}
	p := urlParts{scheme: scheme, hosts: authority}
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		p.user, p.hosts = authority[:i+1], authority[i+1:]
	}
	for host := range strings.SplitSeq(p.hosts, ",") {
		u, err := url.Parse(scheme + "://" + p.user + host + tail)
		if err != nil {
			return urlParts{}, errURLCharacter
		}
		switch {
		case scheme == "unix" && u.Host != "":
			return urlParts{}, errSocket
		case scheme != "unix" && u.Hostname() == "":
			return urlParts{}, errors.New("needs a host, or several separated by commas")
		}
		p.path, p.query = u.Path, u.Query()
	}
	return p, p.check()
}

func (p urlParts) check() error {
	switch {
	case p.scheme == "unix":
		if strings.Trim(p.path, "/") == "" {
			return errSocket
		}
		return nil
	case strings.HasSuffix(p.scheme, "-sentinel") && p.query.Get("master") == "":
		return errors.New("needs the master's name: " + p.scheme + "://host:26379/0?master=NAME")
	}
	if db := strings.Trim(p.path, "/"); db != "" {
		if n, err := strconv.Atoi(db); err != nil || n < 0 {
			return errors.New("may have the number of a database after the host, such as /0, and nothing else")
		}
	}
	return nil
}

func (p urlParts) redact() string {
	user := ""
	if name, _, ok := strings.Cut(p.user, ":"); ok {
		user = name + ":" + redacted + "@"
	} else if p.user != "" {
		user = redacted + "@" // more often a password in the wrong place than a name
	}
	for name := range p.query {
		if strings.Contains(strings.ToLower(name), "pass") {
			p.query.Set(name, redacted)
		}
	}
	s := p.scheme + "://" + user + p.hosts + p.path
	if len(p.query) > 0 {
		s += "?" + strings.NewReplacer("%5B", "[", "%5D", "]").Replace(p.query.Encode())
	}
	return s
}
