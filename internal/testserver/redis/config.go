package redis

import (
	"fmt"
	"strings"
)

// config is the text of redis.conf.
func (s *Server) config() string {
	lines := []string{
		"bind 127.0.0.1",
		"dir " + quote(s.dir),
		"logfile redis.log",
		"daemonize no",
	}
	if !s.opts.sentinel {
		lines = append(lines, `save ""`)
	}
	if s.opts.TLS {
		cert, key := s.opts.ca.CertFiles("server")
		lines = append(lines, "port 0", fmt.Sprintf("tls-port %d", s.port), "tls-auth-clients no",
			"tls-cert-file "+quote(cert), "tls-key-file "+quote(key),
			"tls-ca-cert-file "+quote(s.CAFile()), "tls-cluster yes")
	} else {
		lines = append(lines, fmt.Sprintf("port %d", s.port))
	}
	if s.opts.AppendOnly != Off {
		lines = append(lines, "appendonly yes", "appendfsync "+string(s.opts.AppendOnly))
	}
	switch {
	case s.opts.Username != "":
		lines = append(lines, "user default off",
			fmt.Sprintf("user %s on %s ~* &* +@all", quote(s.opts.Username), quote(">"+s.opts.Password)))
	case s.opts.Password != "":
		lines = append(lines, "requirepass "+quote(s.opts.Password))
	}
	if s.opts.MaxMemory != "" {
		lines = append(lines, "maxmemory "+s.opts.MaxMemory)
	}
	if s.opts.MaxMemoryPolicy != "" {
		lines = append(lines, "maxmemory-policy "+s.opts.MaxMemoryPolicy)
	}
	lines = append(lines, s.opts.Config...)
	return strings.Join(lines, "\n") + "\n"
}

// quote writes a value as redis.conf wants it if it has blanks or quotes.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
