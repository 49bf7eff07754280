package settings

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestLoad_Problems(t *testing.T) {
	dir := t.TempDir()
	pem := filepath.Join(dir, "pem")
	if err := os.WriteFile(pem, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		vars map[string]string
		want []string // as in TestLoad_Warnings
	}{
		{"not a number", map[string]string{"EMAIL_PORT": "smtp"}, []string{`EMAIL_PORT: "smtp" is not a whole number`}},
		{"not a bool", map[string]string{"EMAIL_USE_TLS": "yes"}, []string{`EMAIL_USE_TLS: "yes" is neither true nor false`}},
		{"not a duration", map[string]string{"EMAIL_MAX_AGE": "5 days"}, []string{`EMAIL_MAX_AGE: "5 days" is not a duration`}},
		{"not seconds", map[string]string{"EMAIL_TIMEOUT": "None"}, []string{`EMAIL_TIMEOUT: "None" is neither a number of seconds`}},
		{"seconds without end", map[string]string{"EMAIL_TIMEOUT": "Inf"}, []string{`EMAIL_TIMEOUT: "Inf" is neither`}},
		{"no seconds", map[string]string{"EMAIL_TIMEOUT": "NaN"}, []string{`EMAIL_TIMEOUT: "NaN" is neither`}},
		{"too many seconds", map[string]string{"EMAIL_TIMEOUT": "1e30"}, []string{`EMAIL_TIMEOUT: "1e30" is neither`}},
		{"seconds below zero", map[string]string{"EMAIL_TIMEOUT": "-1"}, []string{`EMAIL_TIMEOUT: -1s is too small`}},
		{"port 0", map[string]string{"EMAIL_PORT": "0"}, []string{"EMAIL_PORT: 0 is out of range; ... 1 to 65535"}},
		{"port 65536", map[string]string{"EMAIL_PORT": "65536"}, []string{"EMAIL_PORT: 65536 is out of range"}},
		{"no connection", map[string]string{"EMAIL_CONNECTIONS": "0"}, []string{"EMAIL_CONNECTIONS: 0 is out of range"}},
		{"no batch", map[string]string{"EMAIL_BATCH_SIZE": "0"}, []string{"EMAIL_BATCH_SIZE: 0 is out of range"}},
		{"negative retries", map[string]string{"EMAIL_MAX_RETRY": "-1"}, []string{"EMAIL_MAX_RETRY: -1 is out of range"}},
		{"no pause", map[string]string{"EMAIL_RETRY_MIN": "0s"}, []string{"EMAIL_RETRY_MIN: 0s is too small; it has to be at least 1s"}},
		{"negative limit", map[string]string{"EMAIL_CONNECTION_MAX_MESSAGES": "-1"}, []string{"EMAIL_CONNECTION_MAX_MESSAGES: -1 is too small"}},
		{"not one of", map[string]string{"EMAIL_PIPELINING": "on"}, []string{`EMAIL_PIPELINING: "on" is not allowed; it has to be auto or off`}},
		{"no level", map[string]string{"LOG_LEVEL": "loud"}, []string{`LOG_LEVEL: "loud" is not allowed; it has to be trace or debug or info or warn or error`}},
		{"no format", map[string]string{"LOG_FORMAT": "xml"}, []string{`LOG_FORMAT: "xml" is not allowed`}},

		{"TLS and SSL", map[string]string{"EMAIL_USE_TLS": "true", "EMAIL_USE_SSL": "true", "EMAIL_PORT": "465"}, []string{"EMAIL_USE_TLS: excludes EMAIL_USE_SSL"}},
		{"certificate without key", map[string]string{"EMAIL_SSL_CERTFILE": pem}, []string{"EMAIL_SSL_KEYFILE: ... EMAIL_SSL_CERTFILE"}},
		{"key without certificate", map[string]string{"EMAIL_SSL_KEYFILE": pem}, []string{"EMAIL_SSL_CERTFILE: ... EMAIL_SSL_KEYFILE"}},
		{"files that cannot be read", map[string]string{"EMAIL_SSL_CERTFILE": dir, "EMAIL_SSL_KEYFILE": pem + "x", "EMAIL_SSL_CAFILE": pem + "y"},
			[]string{"EMAIL_SSL_CERTFILE: cannot be read ... directory", "EMAIL_SSL_KEYFILE: cannot be read ... no such file", "EMAIL_SSL_CAFILE: cannot be read"}},

		{"a loop", map[string]string{"EMAIL_BACKEND": "queue", "EMAIL_QUEUE_BACKEND": "queue"}, []string{"EMAIL_QUEUE_BACKEND: ... such as smtp"}},
		{"files without a directory", map[string]string{"EMAIL_BACKEND": "filebased"}, []string{"EMAIL_FILE_PATH: the filebased backend needs"}},
		{"the worker's files without a directory", map[string]string{"EMAIL_QUEUE_BACKEND": "django.core.mail.backends.filebased.EmailBackend"}, []string{"EMAIL_FILE_PATH: "}},

		{"a URL for a host", map[string]string{"EMAIL_HOST": "smtp://mx"}, []string{`EMAIL_HOST: "smtp://mx" is not the name`}},
		{"host and port", map[string]string{"EMAIL_HOST": "mx1,mx2:25"}, []string{`EMAIL_HOST: "mx2:25" is not ... the port has its own setting`}},
		{"quotes of a shell", map[string]string{"EMAIL_HOST": `"mx"`}, []string{`EMAIL_HOST: "\"mx\"" is not`}},
		{"no host between commas", map[string]string{"EMAIL_HOST": "mx1,,mx2"}, []string{`EMAIL_HOST: "" is not`}},
		{"hostname", map[string]string{"EMAIL_HOSTNAME": "a b"}, []string{`EMAIL_HOSTNAME: "a b" is neither`}},
		{"address without brackets", map[string]string{"EMAIL_HOSTNAME": "IPv6:2001:db8::1"}, []string{`EMAIL_HOSTNAME: "IPv6:`}},
		{"long label", map[string]string{"EMAIL_HOST": strings.Repeat("a", 64) + ".example"}, []string{"EMAIL_HOST: "}},
		{"long name", map[string]string{"EMAIL_HOST": strings.Repeat("a.", 128)}, []string{"EMAIL_HOST: "}},
		{"hyphen at the end", map[string]string{"EMAIL_HOSTNAME": "a-.example.com"}, []string{`EMAIL_HOSTNAME: "a-.example.com" is neither`}},
		{"dot at the end", map[string]string{"EMAIL_HOSTNAME": "a.example.com."}, []string{`EMAIL_HOSTNAME: `}},
		{"address literal", map[string]string{"EMAIL_HOSTNAME": "[2001:db8::1]"}, []string{`EMAIL_HOSTNAME: `}},

		{"Django's pairs", map[string]string{"ADMINS": `[("Ann", "ann@example.com")]`}, []string{"ADMINS: a Python list is not accepted here; write: Ann <ann@example.com>"}},
		{"a tuple", map[string]string{"MANAGERS": `(("Ann", "ann@example.com"),)`}, []string{"MANAGERS: a Python list"}},
		{"a comma without quotes", map[string]string{"ADMINS": "bob@example.com, Doe, Ann <ann@example.com>"}, []string{`ADMINS: "Doe" is not a mail address ... quotes`}},
		{"no local part", map[string]string{"ADMINS": "@example.com"}, []string{`ADMINS: "@example.com" is not`}},
		{"no domain", map[string]string{"ADMINS": "Ann <ann@>"}, []string{`ADMINS: "Ann <ann@>" is not`}},
		{"open bracket", map[string]string{"ADMINS": "Ann <ann@example.com"}, []string{`ADMINS: "Ann <ann@example.com" is not`}},
		{"a name alone", map[string]string{"ADMINS": "Ann Doe"}, []string{`ADMINS: "Ann Doe" is not`}},
		{"semicolons", map[string]string{"ADMINS": "a@b.c; d@e.f"}, []string{`ADMINS: "a@b.c; d@e.f" is not`}},
		{"from", map[string]string{"DEFAULT_FROM_EMAIL": "a@b.c, d@e.f"}, []string{`DEFAULT_FROM_EMAIL: "a@b.c, d@e.f" is not`}},
		{"server", map[string]string{"SERVER_EMAIL": "Root <>"}, []string{`SERVER_EMAIL: "Root <>" is not`}},

		{"header injection", map[string]string{"EMAIL_SUBJECT_PREFIX": "x\r\nBcc: y@z"}, []string{`EMAIL_SUBJECT_PREFIX: has a line end in the middle`}},
		{"line end after a password", map[string]string{"EMAIL_HOST_USER": "u", "EMAIL_HOST_PASSWORD": "hunter2\n"}, []string{"EMAIL_HOST_PASSWORD: has a line end at its end"}},
		{"line end in a name", map[string]string{"ADMINS": "Ann\nDoe <ann@example.com>"}, []string{`ADMINS: "Ann\nDoe <ann@example.com>" holds`}},
		{"not UTF-8", map[string]string{"DEFAULT_CHARSET": "\xff"}, []string{`DEFAULT_CHARSET: "\xff" holds`}},
		{"one problem with an address", map[string]string{"DEFAULT_FROM_EMAIL": "a b\n", "SERVER_EMAIL": "\n"}, []string{`DEFAULT_FROM_EMAIL: has a line end at its end`}},
		{"one problem with a queue", map[string]string{"EMAIL_QUEUE": "a\n"}, []string{`EMAIL_QUEUE: has a line end at its end`}},
		{"line end after a path", map[string]string{"EMAIL_FILE_PATH": "/tmp\r"}, []string{`EMAIL_FILE_PATH: has a line end at its end`}},

		{"queue name", map[string]string{"EMAIL_QUEUE": "{a}"}, []string{`EMAIL_QUEUE: "{a}" is not a queue's name`}},
		{"queue names", map[string]string{"EMAIL_QUEUES": "a b:1"}, []string{`EMAIL_QUEUES: "a b" is not a queue's name`}},
		{"queue name of another alphabet", map[string]string{"EMAIL_QUEUE": "größe"}, []string{`EMAIL_QUEUE: "größe" is not a queue's name; use letters of the English alphabet, digits, - and _`}},
		{"queue name with a dot", map[string]string{"EMAIL_QUEUE": "eu.bulk"}, []string{`EMAIL_QUEUE: "eu.bulk" is not a queue's name`}},
		{"queues with a dot", map[string]string{"EMAIL_QUEUES": "default,eu.bulk"}, []string{`EMAIL_QUEUES: "eu.bulk" is not a queue's name`}},
		{"queues and semicolons", map[string]string{"EMAIL_QUEUES": "default;bulk"}, []string{`EMAIL_QUEUES: "default;bulk" is not a queue's name; use letters of the English alphabet, digits, - and _, a colon before the weight and a comma before the next name`}},
		{"weights behind =", map[string]string{"EMAIL_QUEUES": "default=3,bulk=1"}, []string{`EMAIL_QUEUES: "default=3" is not a queue's name`}},
		{"part of a queue", map[string]string{"EMAIL_QUEUES": "bulk~2"}, []string{`EMAIL_QUEUES: "bulk~2" is not a queue's name`}},
		{"no queue", map[string]string{"EMAIL_QUEUES": ","}, []string{`EMAIL_QUEUES: "" is not a queue's name`}},
		{"no weight", map[string]string{"EMAIL_QUEUES": "a:"}, []string{`EMAIL_QUEUES: "a:": the weight has to be a whole number from 1 to 100`}},
		{"weight 0", map[string]string{"EMAIL_QUEUES": "a:0"}, []string{`EMAIL_QUEUES: "a:0": the weight`}},
		{"weight 101", map[string]string{"EMAIL_QUEUES": "a:101"}, []string{`EMAIL_QUEUES: "a:101": the weight`}},
		{"a queue twice", map[string]string{"EMAIL_QUEUES": "a:1,a:2"}, []string{`EMAIL_QUEUES: queue "a" is named twice`}},

		{"command and batch", map[string]string{"EMAIL_TIMEOUT": "120"}, []string{"EMAIL_BATCH_TIMEOUT: 2m has to be longer than EMAIL_TIMEOUT, which is 2m"}},
		{"batch and shutdown", map[string]string{"EMAIL_SHUTDOWN_TIMEOUT": "2m"}, []string{"EMAIL_SHUTDOWN_TIMEOUT: 2m has to be longer than EMAIL_BATCH_TIMEOUT"}},
		{"batch and task", map[string]string{"EMAIL_TASK_TIMEOUT": "13m59s"}, []string{"EMAIL_TASK_TIMEOUT: 13m59s has to be at least ... together 14m$"}},
		{"command and data", map[string]string{"EMAIL_DATA_TIMEOUT": "59s"}, []string{"EMAIL_DATA_TIMEOUT: 59s cannot be shorter than EMAIL_TIMEOUT"}},
		{"retries", map[string]string{"EMAIL_RETRY_MIN": "2h"}, []string{"EMAIL_RETRY_MIN: 2h cannot be longer than EMAIL_RETRY_MAX, which is 1h"}},

		{"an address without a port", map[string]string{"EMAIL_HTTP_ADDR": "8025"}, []string{`EMAIL_HTTP_ADDR: "8025" is not a host and a port, such as 127.0.0.1:8025, nor off`}},
		{"a URL for an address", map[string]string{"EMAIL_HTTP_ADDR": "http://localhost:8025"}, []string{"EMAIL_HTTP_ADDR: "}},
		{"a port with a name", map[string]string{"EMAIL_HTTP_ADDR": "localhost:http"}, []string{`EMAIL_HTTP_ADDR: "http" is not a port`}},
		{"a port too high", map[string]string{"EMAIL_HTTP_ADDR": ":65536"}, []string{`EMAIL_HTTP_ADDR: "65536" is not a port`}},
		{"a URL for a name", map[string]string{"EMAIL_HTTP_HOSTS": "https://mail.example.com"}, []string{"EMAIL_HTTP_HOSTS: "}},
		{"line end after a token", map[string]string{"EMAIL_HTTP_TOKEN": "hunter2\n"}, []string{"EMAIL_HTTP_TOKEN: has a line end at its end"}},

		{"all at once", map[string]string{"EMAIL_PORT": "x", "EMAIL_TIMEOUT": "y", "EMAIL_QUEUE_BACKEND": "queue", "EMAIL_CONNECTIONS": "1001"},
			[]string{"EMAIL_PORT: ", "EMAIL_TIMEOUT: ", "EMAIL_CONNECTIONS: ", "EMAIL_QUEUE_BACKEND: "}},
		{"what follows from another problem is no news", map[string]string{"EMAIL_TIMEOUT": "y", "EMAIL_BATCH_TIMEOUT": "30s"},
			[]string{"EMAIL_TIMEOUT: "}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			compareLines(t, lines(t, tt.vars), tt.want)
		})
	}
}

func TestLoad_Allowed(t *testing.T) {
	for _, tt := range []struct {
		name string
		vars map[string]string
	}{
		{"smallest task time", map[string]string{"EMAIL_TASK_TIMEOUT": "14m"}},
		{"equal command and data", map[string]string{"EMAIL_DATA_TIMEOUT": "1m"}},
		{"largest numbers", map[string]string{"EMAIL_PORT": "65535", "EMAIL_CONNECTIONS": "1000", "EMAIL_BATCH_SIZE": "10000"}},
		{"smallest numbers", map[string]string{"EMAIL_PORT": "1", "EMAIL_CONNECTIONS": "1", "EMAIL_BATCH_SIZE": "1"}},
		{"longest label", map[string]string{"EMAIL_HOST": strings.Repeat("a", 63)}},
		{"longest name", map[string]string{"EMAIL_HOST": strings.Repeat("a.", 126) + "a"}},
		{"equal pauses", map[string]string{"EMAIL_RETRY_MIN": "1h"}},
		{"literal of IPv4", map[string]string{"EMAIL_HOSTNAME": "[192.0.2.1]"}},
		{"literal of IPv6", map[string]string{"EMAIL_HOSTNAME": "[IPv6:2001:db8::1]"}},
		{"hostname outside ASCII", map[string]string{"EMAIL_HOSTNAME": "bücher.example"}},
		{"host from the root", map[string]string{"EMAIL_HOST": "mx.example.com."}},
		{"container's name", map[string]string{"EMAIL_HOST": "mail_1"}},
		{"root", map[string]string{"SERVER_EMAIL": "root", "ADMINS": "root, bob@example.com, J. R. Smith <jr@example.com>"}},
		{"names outside ASCII", map[string]string{"ADMINS": `Jürgen <j@bücher.example>, "Ö, \"Ä\", Ü" <o@example.com>`}},
		{"odd local parts", map[string]string{"ADMINS": `a..b.@docomo.example, "a b"@example.com, "x,y" <"@,"@example.com>,,`}},
		{"password of odd characters", map[string]string{"EMAIL_HOST_USER": "u", "EMAIL_HOST_PASSWORD": `pä ß:"$%`}},
		{"heaviest weight", map[string]string{"EMAIL_QUEUES": "a:100"}},
	} {
		t.Run(tt.name, func(t *testing.T) { load(t, tt.vars) })
	}
}

func TestLoad_SettingsOfAProblem(t *testing.T) {
	setenv(t, map[string]string{"EMAIL_PORT": "x", "EMAIL_HOST": "mx"})
	s, _, err := Load()
	if err == nil || s.SMTP.Port != 25 || s.SMTP.Hosts[0] != "mx" {
		t.Errorf("got port %d, host %v, error %v", s.SMTP.Port, s.SMTP.Hosts, err)
	}
}

// TestLoad_ProblemAndWarning wants one word about a variable and not two.
func TestLoad_ProblemAndWarning(t *testing.T) {
	setenv(t, map[string]string{"EMAIL_SSL_CAFILE": filepath.Join(t.TempDir(), "missing.pem"), "EMAIL_SSL_SERVER_NAME": "mx"})
	_, warnings, err := Load()
	if err == nil {
		t.Fatal("no error")
	}
	compareLines(t, strings.Split(err.Error(), "\n"), []string{"EMAIL_SSL_CAFILE: cannot be read"})
	compareLines(t, warnings, []string{"EMAIL_SSL_SERVER_NAME: has no effect"})
}

func TestAddresses(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       Addresses
	}{
		{"none", " ", nil},
		{"commas alone", ",,", nil},
		{"two", "a@example.com,b@example.com", Addresses{"a@example.com", "b@example.com"}},
		{"comma in quotes", `"Doe, Ann" <ann@example.com>, b@example.com`, Addresses{`"Doe, Ann" <ann@example.com>`, "b@example.com"}},
		{"quotes in quotes", `"a \", b" <a@example.com>, "c\\" <c@example.com>, d@example.com`,
			Addresses{`"a \", b" <a@example.com>`, `"c\\" <c@example.com>`, "d@example.com"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got Addresses
			if err := got.UnmarshalText([]byte(tt.text)); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	s := Default()
	s.Worker.BatchTimeout = time.Second
	s.SMTP.Hosts = Hosts{"a b"}
	s.Message.Admins = Addresses{"nobody at all"}
	s.Worker.Queues = nil
	err := s.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	compareLines(t, strings.Split(err.Error(), "\n"), []string{
		`ADMINS: "nobody at all"`, "EMAIL_QUEUES: names no queue", `EMAIL_HOST: "a b"`, "EMAIL_BATCH_TIMEOUT: 1s has to be longer",
	})
}
