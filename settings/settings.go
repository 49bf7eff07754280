package settings

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Settings is everything that the environment can set. Get one from Load or Default: the
// zero value lacks the defaults, and Validate refuses it.
//
// The tags are the documentation. Each field names its variable (envconfig), its
// default, what it does (desc), what it may be (min, max, oneof) and whether a mailer
// of EMAIL_MAILERS has its own value (mailer: own if it never takes the default mailer's,
// shared if it takes that one's unless it sets its own). Load, Validate, Describe and Markdown
// all read them. A field of the type Secret, URL or MailURL may be in a file too: NAME_FILE names it. One that may have
// several lines, such as a key, says so (lines:"many").
type Settings struct {
	Delivery Delivery `group:"Delivery"`
	Message  Message  `group:"Messages"`
	SMTP     SMTP     `group:"SMTP"`
	OAuth    OAuth    `group:"OAuth 2"`
	DKIM     DKIM     `group:"DKIM"`
	Queue    Queue    `group:"Queue"`
	Worker   Worker   `group:"Worker"`
	Rates    Rates    `group:"Rates"`
	Intake   Intake   `group:"Intake"`
	Events   Events   `group:"Events"`
	HTTP     HTTP     `group:"Pages"`
	Log      Log      `group:"Log"`

	// Using is the name of the mailer that these settings are for: "" for the default
	// one. Named sets it; no variable does.
	Using string

	named  []named           // the other mailers, as Load found them
	read   map[string]origin // what Load found, by variable
	unread []unread          // secrets whose files could not be read

	schemes  map[string]string // as the Loader had it
	producer bool              // likewise
}

// Delivery is where a program's messages go.
type Delivery struct {
	Backend  string  `envconfig:"EMAIL_BACKEND" mailer:"own" default:"smtp" desc:"what a program hands its mail to: smtp, console, filebased, locmem, dummy, failover to send with other mailers, or queue to leave it to a worker; Django's dotted paths are accepted"`
	FilePath string  `envconfig:"EMAIL_FILE_PATH" mailer:"own" desc:"directory of the filebased backend; created if it is missing"`
	URL      MailURL `envconfig:"EMAIL_URL" mailer:"own" desc:"backend, server, login and TLS in one: smtp://user:password@host:port, smtp+starttls:// (port 587), smtps:// (465), filebased:///path, console:, locmem: or dummy:; it takes the place of the settings for these. EMAIL_BACKEND and EMAIL_QUEUE_BACKEND, if they are set, still choose the backend"`
	Members  Members `envconfig:"EMAIL_MEMBERS" mailer:"own" desc:"mailers of EMAIL_MAILERS that the failover backend sends with, and their weights, such as ses:3,postmark:1. What is set for a member, its connections among it, counts for what goes with it"`
	Policy   string  `envconfig:"EMAIL_POLICY" mailer:"own" default:"order" oneof:"order,weighted" desc:"which of these members takes a message: order is the first one that takes mail, weighted is all that do, by their weights"`
	Mailers  Names   `envconfig:"EMAIL_MAILERS" desc:"names of the mailers beside the default one, such as marketing,alerts; see Named mailers below"`

	AllowedRecipients  Allowed    `envconfig:"EMAIL_ALLOWED_RECIPIENTS" mailer:"shared" desc:"who may get mail from here, for a program that is tried out: addresses and domains, such as ann@example.com, example.com, and .example.com for the domains below it too; * is everybody. Whoever else a message is for becomes a dead letter. The worker's own setting counts. Everybody if empty"`
	OverrideRecipients Recipients `envconfig:"EMAIL_OVERRIDE_RECIPIENTS" mailer:"shared" desc:"who gets all mail in place of its recipients, for staging: addresses, such as qa@example.com, Ann <ann@example.com>. Each message has its own recipients, blind copies too, in X-Original-To fields. The worker's own setting counts"`
}

// Message is what a message gets that its author left out.
type Message struct {
	DefaultFrom   string    `envconfig:"DEFAULT_FROM_EMAIL" default:"webmaster@localhost" desc:"From of a message that names none"`
	ServerEmail   string    `envconfig:"SERVER_EMAIL" default:"root@localhost" desc:"From of mail to admins and managers"`
	SubjectPrefix string    `envconfig:"EMAIL_SUBJECT_PREFIX" default:"[Django] " empty:"keep" desc:"put before the subject of mail to admins and managers, with the space at its end; set it empty for none"`
	Admins        Addresses `envconfig:"ADMINS" desc:"who gets mail to admins: addresses separated by commas, such as Ann <ann@example.com>, bob@example.com"`
	Managers      Addresses `envconfig:"MANAGERS" desc:"who gets mail to managers, in the form of ADMINS"`
	Charset       string    `envconfig:"DEFAULT_CHARSET" default:"utf-8" desc:"charset of a message that names none"`
	LocalTime     bool      `envconfig:"EMAIL_USE_LOCALTIME" default:"false" desc:"Date in the local time zone instead of UTC"`
	Hostname      string    `envconfig:"EMAIL_HOSTNAME" desc:"this machine's name in Message-ID and EHLO; looked up at the start if empty"`
}

// SMTP is how the smtp backend reaches its server.
type SMTP struct {
	Hosts      Hosts  `envconfig:"EMAIL_HOST" mailer:"own" default:"localhost" desc:"mail server; several are separated by commas and tried in this order"`
	Port       int    `envconfig:"EMAIL_PORT" mailer:"own" default:"25" min:"1" max:"65535" desc:"its port; most servers take mail on 587 with EMAIL_USE_TLS and 465 with EMAIL_USE_SSL"`
	User       string `envconfig:"EMAIL_HOST_USER" mailer:"own" desc:"user name; there is a login only if this and the password are set, or EMAIL_OAUTH"`
	Password   Secret `envconfig:"EMAIL_HOST_PASSWORD" mailer:"own" desc:"password"`
	UseTLS     bool   `envconfig:"EMAIL_USE_TLS" mailer:"own" default:"false" desc:"begin in clear text and require STARTTLS"`
	UseSSL     bool   `envconfig:"EMAIL_USE_SSL" mailer:"own" default:"false" desc:"TLS from the first byte; excludes EMAIL_USE_TLS"`
	CertFile   string `envconfig:"EMAIL_SSL_CERTFILE" mailer:"own" desc:"PEM file of our own certificate, for a server that asks for one"`
	KeyFile    string `envconfig:"EMAIL_SSL_KEYFILE" mailer:"own" desc:"PEM file of its key"`
	CAFile     string `envconfig:"EMAIL_SSL_CAFILE" mailer:"own" desc:"PEM file of the authorities to trust instead of the system's"`
	ServerName string `envconfig:"EMAIL_SSL_SERVER_NAME" mailer:"own" desc:"name that the server's certificate must be for; EMAIL_HOST if empty"`

	AuthMechanisms Mechanisms `envconfig:"EMAIL_AUTH_MECHANISMS" mailer:"own" desc:"ways to log in that may be used, in this order: SCRAM-SHA-256, CRAM-MD5, PLAIN, LOGIN if empty; with EMAIL_OAUTH XOAUTH2 and OAUTHBEARER. For a server that offers one which does not work"`

	TemporaryReplies Replies `envconfig:"EMAIL_TEMPORARY_REPLIES" mailer:"own" desc:"permanent refusals (5yz) that mean not now when this server says them, such as those for a daily limit: codes, enhanced status codes and texts, with * for any text, separated by commas, as in 550 5.1.90, 554 5.7.0 too many*messages. The message is tried again, and several such refusals in a row hold the mailer"`

	AllowInsecureAuth bool `envconfig:"EMAIL_ALLOW_INSECURE_AUTH" mailer:"own" default:"false" desc:"allow the password to go to another machine without TLS"`

	Timeout     Seconds       `envconfig:"EMAIL_TIMEOUT" mailer:"shared" default:"1m" min:"1ms" desc:"how long connecting and each command may take, and how long the server may read nothing of a message; a plain number is seconds"`
	DataTimeout time.Duration `envconfig:"EMAIL_DATA_TIMEOUT" mailer:"shared" default:"10m" min:"1ms" desc:"how long the reply to a whole message may take; giving up on it may send the message twice"`

	Pipelining string `envconfig:"EMAIL_PIPELINING" mailer:"shared" default:"auto" oneof:"auto,off" desc:"send the end of a message together with the beginning of the next, if the server offers it"`
	Chunking   string `envconfig:"EMAIL_CHUNKING" mailer:"shared" default:"off" oneof:"auto,off" desc:"send messages without waiting for each reply, if the server offers it; for much mail and for distant servers. If a connection is lost or a worker killed, up to 16 messages of each connection may be sent twice"`

	IdleTimeout time.Duration `envconfig:"EMAIL_CONNECTION_IDLE" mailer:"shared" default:"1m" min:"1s" desc:"how long an open connection may go unused"`
	MaxMessages int           `envconfig:"EMAIL_CONNECTION_MAX_MESSAGES" mailer:"shared" default:"0" min:"0" desc:"messages after which a connection is replaced; 0 is no limit"`
	MaxBytes    int           `envconfig:"EMAIL_CONNECTION_MAX_BYTES" mailer:"shared" default:"0" min:"0" desc:"bytes of messages after which a connection is replaced; 0 is no limit"`
	MaxAge      time.Duration `envconfig:"EMAIL_CONNECTION_MAX_AGE" mailer:"shared" default:"0s" min:"0s" desc:"age at which a connection is replaced; 0s is no limit"`
}

// OAuth is where the smtp backend gets the OAuth 2 tokens from that it logs in with, instead of a password.
type OAuth struct {
	Provider         string `envconfig:"EMAIL_OAUTH" mailer:"own" default:"off" oneof:"off,microsoft,google,custom" desc:"log in with an OAuth 2 token of this provider instead of EMAIL_HOST_PASSWORD; EMAIL_HOST_USER is the mailbox. docs/oauth.md says step by step what it takes"`
	Tenant           string `envconfig:"EMAIL_OAUTH_TENANT" mailer:"own" desc:"Microsoft's ID of the directory, or one of its domains"`
	ClientID         string `envconfig:"EMAIL_OAUTH_CLIENT_ID" mailer:"own" desc:"ID of the application that is registered with the provider"`
	ClientSecret     Secret `envconfig:"EMAIL_OAUTH_CLIENT_SECRET" mailer:"own" desc:"its secret. Without EMAIL_OAUTH_REFRESH_TOKEN_FILE the application logs in as itself (client credentials)"`
	RefreshTokenFile string `envconfig:"EMAIL_OAUTH_REFRESH_TOKEN_FILE" mailer:"own" desc:"file of the refresh token of a person who has agreed; worker oauth login writes it, and so does the worker when the provider gives another one"`
	KeyFile          string `envconfig:"EMAIL_OAUTH_KEY_FILE" mailer:"own" desc:"JSON file with the key of a Google service account, which acts for EMAIL_HOST_USER"`
	TokenURL         string `envconfig:"EMAIL_OAUTH_TOKEN_URL" mailer:"own" desc:"the provider's token endpoint; only a custom one needs it"`
	DeviceURL        string `envconfig:"EMAIL_OAUTH_DEVICE_URL" mailer:"own" desc:"the provider's endpoint for device codes, for worker oauth login; only a custom one needs it"`
	Scope            string `envconfig:"EMAIL_OAUTH_SCOPE" mailer:"own" desc:"what to ask the provider for, separated by blanks; empty is what sending mail takes at Microsoft and Google"`
}

// DKIM is what signs the messages that are sent.
type DKIM struct {
	Domains   List `envconfig:"EMAIL_DKIM_DOMAIN" mailer:"shared" desc:"domain that signs each message (DKIM), the one of its From: example.com. Several are separated by commas; a message is signed for the domain of its From, or else for the nearest one under the same registered domain, or else for the first. off signs nothing"`
	Selectors List `envconfig:"EMAIL_DKIM_SELECTOR" mailer:"shared" desc:"name of the key in the DNS, where the public key is at SELECTOR._domainkey.DOMAIN: one for all of EMAIL_DKIM_DOMAIN, or one for each, in their order"`
	KeyFiles  List `envconfig:"EMAIL_DKIM_KEY_FILE" mailer:"shared" desc:"PEM file of the private key, RSA with 2048 bits or more, or Ed25519: one for all of EMAIL_DKIM_DOMAIN, or one for each, in their order. One domain with several selectors and keys signs several times"`
}

// Queue is where and how messages wait for a worker. Producers and workers read it.
type Queue struct {
	RedisURL    URL           `envconfig:"REDIS_URL" default:"redis://127.0.0.1:6379/0" desc:"the Redis that keeps the queue: redis://, rediss:// (TLS), unix:// or redis-sentinel://host:26379?master=NAME; several hosts are separated by commas"`
	Name        string        `envconfig:"EMAIL_QUEUE" default:"default" desc:"queue that messages are put in"`
	MaxRetry    int           `envconfig:"EMAIL_MAX_RETRY" default:"25" min:"0" max:"1000" desc:"tries after the first one before a message becomes a dead letter"`
	TaskTimeout time.Duration `envconfig:"EMAIL_TASK_TIMEOUT" default:"30m" min:"1s" desc:"how long a worker keeps a message that it cannot send before it gives it back to the queue; the worker's own setting counts, not that of the program that handed the message over; at least EMAIL_DATA_TIMEOUT plus twice EMAIL_BATCH_TIMEOUT"`

	BulkSize int `envconfig:"EMAIL_MASS_SIZE" default:"100" min:"1" max:"1000" desc:"how many of the messages that are handed over together share a task, at most; 1 gives each message its own"`
	Shards   int `envconfig:"EMAIL_QUEUE_SHARDS" default:"1" min:"1" max:"64" desc:"parts that each queue is divided into, so that the masters of a Redis Cluster share the work; raise it for the workers first, then for the programs that queue"`

	IdempotencyWindow time.Duration `envconfig:"EMAIL_IDEMPOTENCY_WINDOW" default:"24h" min:"1s" desc:"how long after its message was sent an idempotency key is remembered; until then the message stays in Redis"`

	AttachmentThreshold Size `envconfig:"EMAIL_ATTACHMENT_THRESHOLD" default:"64kB" min:"0" desc:"attachments and bodies bigger than this are stored beside the queue, the same content once, instead of in each message; 0 is never"`
	MaxMessageSize      Size `envconfig:"EMAIL_MAX_MESSAGE_SIZE" default:"25MB" min:"0" desc:"a message bigger than this is refused at hand-over; its size is that of the message as sent, with encoded attachments and all addresses; 0 is no limit"`
}

// Worker is how a worker delivers.
type Worker struct {
	Backend         string        `envconfig:"EMAIL_QUEUE_BACKEND" default:"smtp" desc:"what the worker delivers with; any backend but queue"`
	Queues          Queues        `envconfig:"EMAIL_QUEUES" default:"critical:6,default:3,bulk:1" desc:"queues that the worker takes from, each with its weight"`
	Connections     int           `envconfig:"EMAIL_CONNECTIONS" mailer:"shared" default:"4" min:"1" max:"1000" desc:"connections to the mail server that each worker keeps open. If it is not set they become more by themselves, while mail waits and more help, and fewer again"`
	ConnectionsMax  int           `envconfig:"EMAIL_CONNECTIONS_MAX" mailer:"shared" default:"20" min:"1" max:"1000" desc:"how many connections these may become in each worker where EMAIL_CONNECTIONS is not set"`
	BatchSize       int           `envconfig:"EMAIL_BATCH_SIZE" default:"100" min:"1" max:"10000" desc:"messages that one connection takes at once, at most"`
	Memory          Size          `envconfig:"EMAIL_WORKER_MEMORY" default:"256MB" min:"0" desc:"memory for the messages bigger than 64 kB that are being sent, each counted together with its rendered form; others wait in Redis. The process keeps itself to 1.25 times as much and 64 MB, unless GOMEMLIMIT is set; give its container that and a quarter. 0 is no limit"`
	RetryMin        time.Duration `envconfig:"EMAIL_RETRY_MIN" default:"5s" min:"1s" desc:"shortest pause before another try"`
	RetryMax        time.Duration `envconfig:"EMAIL_RETRY_MAX" default:"1h" min:"1s" desc:"longest pause before another try"`
	MaxAge          time.Duration `envconfig:"EMAIL_MAX_AGE" default:"120h" min:"1s" desc:"age at which a message that could not be sent becomes a dead letter"`
	History         time.Duration `envconfig:"EMAIL_HISTORY" default:"72h" min:"0s" desc:"how long a short record of each message that has ended is kept in Redis, with masked recipients, for enqueue status and enqueue history; the same for all workers. 0 is none"`
	HistorySize     Size          `envconfig:"EMAIL_HISTORY_SIZE" default:"100MB" min:"0" desc:"memory in Redis that all these records may take, about: the oldest go first. A million take about 160 MB. 0 is none"`
	BatchTimeout    time.Duration `envconfig:"EMAIL_BATCH_TIMEOUT" default:"2m" min:"1s" desc:"for how long the messages of one batch begin; longer than EMAIL_TIMEOUT. Those whose turn has not come by then go to other connections or into the next batch, untried; one that has begun goes on as long as the server takes it"`
	ShutdownTimeout time.Duration `envconfig:"EMAIL_SHUTDOWN_TIMEOUT" default:"2m30s" min:"1s" desc:"how long a stopping worker waits for the batches on the wire; longer than EMAIL_BATCH_TIMEOUT. A message that takes longer is cut off then, and begins anew in another worker. Whatever stops the worker (systemd, Kubernetes) must wait longer than this before it kills it"`
}

// Rates are how much mail the mail server takes, for all workers together.
type Rates struct {
	Messages    Limits       `envconfig:"EMAIL_RATE" mailer:"own" desc:"messages that all workers together may send, such as 200/s or 30/m burst=5; several are separated by commas and hold all at once. After the number comes s, m, h or d. A rate by the second or minute is spread evenly, with so many at once after a pause as burst says, 1 if it says nothing. One by the hour or day is a quota for the last hour or day, used as mail comes, unless it has a burst. See Rates in docs/rates.md"`
	Recipients  Limits       `envconfig:"EMAIL_RATE_RECIPIENTS" mailer:"own" desc:"the same for recipients, for a server that counts these"`
	Connections int          `envconfig:"EMAIL_RATE_CONNECTIONS" mailer:"own" default:"0" min:"0" max:"10000" desc:"connections that all workers together may have open; 0 is no limit"`
	Domains     DomainLimits `envconfig:"EMAIL_RATE_DOMAINS" mailer:"own" desc:"messages to a domain of recipients that all workers together may send, such as gmail.com:20/s, *:50/s; * stands for each domain that is not named. A message over its domain's rate waits in Redis, without costing a try, and keeps nothing else waiting"`
}

// Intake is where other programs hand mail in, and who may. Only `worker run` and `worker intake` read it.
type Intake struct {
	Submission Listeners `envconfig:"EMAIL_SUBMISSION_ADDR" desc:"where mail is taken over SMTP: 127.0.0.1:2525, smtps://0.0.0.0:465 (TLS from the first byte), unix:///run/mailpouch/smtp.sock, lmtp+unix:///run/mailpouch/lmtp.sock; several are separated by commas. Mail that is not from EMAIL_SUBMISSION_NETWORKS or a socket takes a login with a key. Nowhere if empty. See docs/intake.md"`
	CertFile   string    `envconfig:"EMAIL_SUBMISSION_CERTFILE" desc:"PEM file of its certificate, with those between it and its authority: for STARTTLS, and for smtps://"`
	KeyFile    string    `envconfig:"EMAIL_SUBMISSION_KEYFILE" desc:"PEM file of the certificate's key"`
	Networks   Networks  `envconfig:"EMAIL_SUBMISSION_NETWORKS" desc:"networks that may hand in mail of any sender without a login: addresses and prefixes, such as 10.1.0.0/16, 192.0.2.7, ::1. Behind a proxy all clients have its address. None if empty"`

	Connections           int           `envconfig:"EMAIL_SUBMISSION_CONNECTIONS" default:"1000" min:"1" max:"100000" desc:"SMTP connections that may be open at once; others hear 421"`
	ConnectionsPerAddress int           `envconfig:"EMAIL_SUBMISSION_CONNECTIONS_PER_ADDRESS" default:"100" min:"1" max:"100000" desc:"SMTP connections that one address may have open; those of EMAIL_SUBMISSION_NETWORKS do not count"`
	Recipients            int           `envconfig:"EMAIL_SUBMISSION_RECIPIENTS" default:"1000" min:"100" max:"100000" desc:"recipients that a message may have which comes over SMTP; those beyond hear 452, and a client sends the message to them again"`
	Timeout               time.Duration `envconfig:"EMAIL_SUBMISSION_TIMEOUT" default:"5m" min:"1s" desc:"how long an SMTP client may say nothing (RFC 5321 asks for 5 minutes)"`
	Memory                Size          `envconfig:"EMAIL_SUBMISSION_MEMORY" default:"64MB" min:"1MB" desc:"bytes that all messages together may have which are being received over SMTP; others hear 452, and come again. At least EMAIL_MAX_MESSAGE_SIZE"`

	API         string `envconfig:"EMAIL_API_ADDR" desc:"host:port where mail is taken over HTTP, such as 127.0.0.1:8026. Each request has a key. Nowhere if empty. See docs/intake.md"`
	APICertFile string `envconfig:"EMAIL_API_CERTFILE" desc:"PEM file of its certificate, with those between it and its authority: then it is https://"`
	APIKeyFile  string `envconfig:"EMAIL_API_KEYFILE" desc:"PEM file of the certificate's key"`
	APIPlain    bool   `envconfig:"EMAIL_API_ALLOW_PLAIN" default:"false" desc:"let other machines reach the API without TLS: behind a proxy that speaks TLS, or in a network that nobody else listens to"`

	KeysFile string `envconfig:"EMAIL_API_KEYS_FILE" desc:"file of the keys that programs hand mail in with, over SMTP (the key is the password) and over HTTP; worker key new adds one"`
}

// Events are what is told of what becomes of messages, and to whom.
type Events struct {
	Write   string         `envconfig:"EMAIL_EVENTS" default:"auto" oneof:"auto,true,false" desc:"keep events of messages (queued, sent, delayed, failed, cancelled, for each recipient) in a stream in Redis; auto is true where EMAIL_WEBHOOK_URL is set. The same for workers and for the programs that queue. See docs/events.md"`
	Size    Size           `envconfig:"EMAIL_EVENTS_SIZE" default:"50MB" min:"1MB" desc:"memory in Redis that all events may take, about: the oldest go first, read or not. A message of one recipient has two or three, of about 150 bytes each"`
	URLs    WebhookURLs    `envconfig:"EMAIL_WEBHOOK_URL" desc:"where workers post events, as Standard Webhooks; several are separated by commas, and each gets all"`
	Secret  WebhookSecrets `envconfig:"EMAIL_WEBHOOK_SECRET" desc:"what they are signed with: whsec_ and 24 to 64 bytes in base64. Several, separated by commas, all sign, so that a receiver may change from one to the other"`
	Private bool           `envconfig:"EMAIL_WEBHOOK_ALLOW_PRIVATE" default:"false" desc:"post to addresses of this machine and of private networks too"`
}

// HTTP is where a worker shows its pages and metrics, and to whom.
type HTTP struct {
	Addr          string `envconfig:"EMAIL_HTTP_ADDR" default:"127.0.0.1:8025" desc:"host:port of a worker's pages and metrics, or off. If it is not set and the port is in use, the next free one up to 8034. Beyond loopback a password or a token is required"`
	Password      Secret `envconfig:"EMAIL_HTTP_PASSWORD" desc:"password that browsers are asked for, with any user name (HTTP Basic)"`
	Token         Secret `envconfig:"EMAIL_HTTP_TOKEN" desc:"token that programs may send instead: Authorization: Bearer TOKEN"`
	Hosts         Hosts  `envconfig:"EMAIL_HTTP_HOSTS" desc:"names by which browsers reach the pages, beside localhost; on loopback other names are refused"`
	ShowAddresses bool   `envconfig:"EMAIL_HTTP_SHOW_ADDRESSES" default:"false" desc:"show mail addresses in full, instead of their first letter and their domain"`
	MetricsTags   Tags   `envconfig:"EMAIL_METRICS_TAGS" desc:"tags that the metrics count messages by, at most 50, separated by commas, such as invoice,newsletter; every other tag is counted as other. None if empty"`
	AllowWrite    bool   `envconfig:"EMAIL_HTTP_ALLOW_WRITE" default:"false" desc:"let /monitor/ delete, run and pause, and /pauses pause and resume, instead of only showing"`
}

// Log is what the programs write about their work.
type Log struct {
	Level  string `envconfig:"LOG_LEVEL" default:"info" oneof:"trace,debug,info,warn,error" desc:"least important messages to be logged"`
	Format string `envconfig:"LOG_FORMAT" default:"auto" oneof:"auto,json,console" desc:"json for programs, console for people; auto is console on a terminal"`

	ShowAddresses bool `envconfig:"EMAIL_LOG_SHOW_ADDRESSES" default:"false" desc:"log mail addresses in full, to find a recipient by, instead of their first letter and their domain"`
}

// Source is where the value of a setting comes from.
type Source string

// The sources of a value.
const (
	FromDefault       Source = "default"
	FromEnvironment   Source = "environment"
	FromFile          Source = "file"           // the file that NAME_FILE names
	FromURL           Source = "url"            // the mailer's EMAIL_URL
	FromDefaultMailer Source = "default mailer" // the default mailer's value, which the named mailer shares
	FromProgram       Source = "program"        // changed by the program after Load
)

// origin is where Load got a value, and the value as Describe shows it.
type origin struct {
	source Source
	value  string
	file   string // of a secret that came from one
	text   Secret // and what the file had
}

// unread is a secret that has its default, since its file could not be read.
type unread struct {
	name     string // of the secret's variable
	key      string // of that of the default mailer
	using    string
	ofMailer bool
	ofWorker bool
	why      string // the problem with the file
}

// named is what the environment sets for one mailer of EMAIL_MAILERS.
type named struct {
	name string
	own  Settings        // only the fields with the tag mailer count
	set  map[string]bool // which fields are set, by the default mailer's variable
}

// usualPort is the port that goes with the kind of TLS.
func (c SMTP) usualPort() int {
	switch {
	case c.UseSSL:
		return portTLS
	case c.UseTLS:
		return portStartTLS
	}
	return portPlain
}

// On reports whether the login is one with a token.
func (o OAuth) On() bool { return o.Provider != "off" && o.Provider != "" }

func (o OAuth) hasSecret() bool { return o.ClientSecret.Reveal() != "" }

func (c SMTP) hasPassword() bool { return c.Password.Reveal() != "" }

// Problem is one thing that is wrong with a setting.
type Problem struct {
	Name string // of the variable
	Text string // what is wrong and what is allowed; never a secret
}

// Error returns one line: the variable and what is wrong with it.
func (p Problem) Error() string { return p.Name + ": " + p.Text }

// fileSuffix makes of the name of a secret's variable that of the variable which names a file with the secret.
const fileSuffix = "_FILE"

// Problems is everything that is wrong with the settings: the error of Load, Validate and
// CheckWorker, and of Named for a mailer without a host.
type Problems []Problem

// Error has one line for each problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.Error()
	}
	return strings.Join(lines, "\n")
}

// err is p as an error: nil if there are no problems.
func (p Problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

func (p *Problems) add(name, format string, args ...any) {
	*p = append(*p, Problem{Name: name, Text: fmt.Sprintf(format, args...)})
}

// has reports whether one of the variables, or that of its file, is among the problems. Rules about several
// settings ask it first: a problem that only follows from another one is not reported.
func (p Problems) has(names ...string) bool {
	return slices.ContainsFunc(p, func(problem Problem) bool {
		return slices.Contains(names, problem.Name) || slices.Contains(names, strings.TrimSuffix(problem.Name, fileSuffix))
	})
}
