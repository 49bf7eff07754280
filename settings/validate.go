package settings

import (
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/internal/hostname"
)

// Validate checks settings that a program has changed after Load, as Load does. The error, if
// not nil, is a Problems.
func (s Settings) Validate() error {
	var problems Problems
	s.check(&problems)
	return problems.err()
}

// A program that leaves its mail to workers has no use for the mailers' secrets, and only a worker has one for those of the
// pages and of webhooks. Often all of them have the same environment, and the files are the workers' alone. So it is only a warning there that a
// file cannot be read, and an error for those who use it: CheckSecrets and CheckWorker.

// refuseUnread reports the files that could not be read and that this program needs for certain.
func (s Settings) refuseUnread(p *Problems) {
	for _, u := range s.unread {
		if !u.ofWorker && (!u.ofMailer || s.Delivery.Backend != queueName) {
			p.add(u.name+fileSuffix, "%s", u.why)
		}
	}
}

// CheckSecrets reports the files of the mailer's secrets that could not be read. Load has only warned of them if the program
// leaves its mail to workers. Whoever makes a backend of the settings calls it, as backends.Registry.New does. The
// error, if not nil, is a Problems.
func (s Settings) CheckSecrets() error {
	var p Problems
	for _, u := range s.unread {
		if u.ofMailer && (u.using == s.Using || u.using == "" && s.ownVariable(u.key) == u.name) {
			p.add(u.name+fileSuffix, "%s", u.why)
		}
	}
	return p.err()
}

// CheckWorker reports what is wrong for a worker alone, which shows pages, takes mail from other programs and posts webhooks: addresses that other
// machines can reach without a password or a key, files that cannot be read, and secrets that are missing. Load has only warned of
// some of it, or said nothing: other programs may have the same environment. The error, if not nil, is a Problems.
func (s Settings) CheckWorker() error {
	var p Problems
	for _, u := range s.unread {
		if u.ofWorker {
			p.add(u.name+fileSuffix, "%s", u.why)
		}
	}
	s.HTTP.checkAccess(&p)
	s.Intake.checkAccess(&p)
	s.Events.checkWebhooks(&p)
	return p.err()
}

// check adds to problems, which already has those of the variables that could not be read.
// Such variables have their defaults here.
func (s Settings) check(problems *Problems) {
	for _, f := range fields(&s) {
		f.check(problems)
	}
	s.checkNames(problems)
	s.checkMessage(problems)
	s.checkQueues(problems)
	s.HTTP.check(problems)
	s.Intake.check(s.Queue.MaxMessageSize, problems)
	s.Events.check(problems)
	for _, m := range s.mailers() {
		m.checkOwn(problems)
		m.checkDelivery(problems)
		m.checkMembers(problems)
		m.checkSMTP(problems)
		m.checkDKIM(problems)
		m.checkTimes(problems)
		if s.Delivery.Backend != queueName {
			m.checkHost(problems)
			m.checkFiles(problems)
		}
	}
}

// queueName is the backend of a program that leaves its mail to a worker. Such a program does
// not use the mailers' servers and files, so what is wrong with them is only a warning: often
// the worker has the same environment and uses them.
const queueName = "queue"

// checkOwn checks the values that a mailer other than the default one has set itself. Shared
// values are checked with the default mailer's.
func (s Settings) checkOwn(p *Problems) {
	if s.Using == "" {
		return
	}
	for _, f := range s.readable() {
		if s.Variable(f.key) == f.name && !p.has(f.name) {
			f.check(p)
		}
	}
}

func (s Settings) checkDelivery(p *Problems) {
	if s.Worker.Backend == queueName {
		name := queueBackendVariable
		if s.Using != "" {
			name = s.Variable(backendVariable)
		}
		p.add(name, "a worker cannot deliver into the queue that it takes mail from; name another backend, such as smtp")
	}
	filebased := slices.Contains([]string{s.Delivery.Backend, s.Worker.Backend}, "filebased")
	if filebased && s.Delivery.FilePath == "" {
		p.add(s.Variable("EMAIL_FILE_PATH"), "the filebased backend needs a directory here")
	}
}

func (s Settings) checkMessage(p *Problems) {
	for _, sender := range []struct{ name, address string }{
		{"DEFAULT_FROM_EMAIL", s.Message.DefaultFrom},
		{"SERVER_EMAIL", s.Message.ServerEmail},
	} {
		if p.has(sender.name) {
			continue
		}
		if err := checkAddress(sender.address); err != nil {
			p.add(sender.name, "%v", err)
		}
	}
	host := s.Message.Hostname
	if host != "" && !p.has("EMAIL_HOSTNAME") && !hostname.IsUnicode(host) && !hostname.IsAddressLiteral(host) {
		p.add("EMAIL_HOSTNAME", "%q is neither a host name nor an address literal, such as [192.0.2.1]", host)
	}
}

func (s Settings) checkSMTP(p *Problems) {
	c, v := s.SMTP, s.Variable
	for _, host := range c.Hosts {
		if err := checkHost(host); err != nil && !p.has(v("EMAIL_HOST")) {
			p.add(v("EMAIL_HOST"), "%v", err)
		}
	}
	if c.UseTLS && c.UseSSL {
		p.add(v("EMAIL_USE_TLS"), "excludes %[1]s: set the one that the server wants, most often %[2]s on port 587 or %[1]s on port 465", v("EMAIL_USE_SSL"), v("EMAIL_USE_TLS"))
	}
	switch {
	case c.CertFile != "" && c.KeyFile == "":
		p.add(v("EMAIL_SSL_KEYFILE"), "the certificate in %s needs its key here", v("EMAIL_SSL_CERTFILE"))
	case c.CertFile == "" && c.KeyFile != "":
		p.add(v("EMAIL_SSL_CERTFILE"), "the key in %s needs its certificate here", v("EMAIL_SSL_KEYFILE"))
	}
}

// checkFiles reports what is wrong with what a program does not use that leaves its mail to a worker: the files of keys and certificates
// that cannot be read, and the login with a token.
func (s Settings) checkFiles(p *Problems) {
	s.checkOAuth(p)
	s.checkDKIMKeys(p)
	for _, file := range []struct{ name, path string }{
		{s.Variable("EMAIL_SSL_CERTFILE"), s.SMTP.CertFile},
		{s.Variable("EMAIL_SSL_KEYFILE"), s.SMTP.KeyFile},
		{s.Variable("EMAIL_SSL_CAFILE"), s.SMTP.CAFile},
		{s.Variable("EMAIL_OAUTH_KEY_FILE"), s.OAuth.KeyFile},
	} {
		if file.path == "" || p.has(file.name) {
			continue
		}
		if err := canRead(file.path); err != nil {
			p.add(file.name, "cannot be read: %v", err)
		}
	}
}

func (s Settings) checkQueues(p *Problems) {
	if !p.has("EMAIL_QUEUE") {
		if err := checkQueueName(s.Queue.Name); err != nil {
			p.add("EMAIL_QUEUE", "%v", err)
		}
	}
	if len(s.Worker.Queues) == 0 && !p.has("EMAIL_QUEUES") {
		p.add("EMAIL_QUEUES", "names no queue")
	}
}

// checkTimes checks that each time is longer than the times that pass inside it. Otherwise the
// outer one would cut the inner one off in the middle of a message.
func (s Settings) checkTimes(p *Problems) {
	command, batch := time.Duration(s.SMTP.Timeout), s.Worker.BatchTimeout
	less := func(small string, a time.Duration, large string, b time.Duration) {
		if a >= b && !p.has(small, large) {
			p.add(large, "%s has to be longer than %s, which is %s", showDuration(b), small, showDuration(a))
		}
	}
	timeout, dataTimeout := s.Variable("EMAIL_TIMEOUT"), s.Variable("EMAIL_DATA_TIMEOUT")
	less(timeout, command, "EMAIL_BATCH_TIMEOUT", batch)
	less("EMAIL_BATCH_TIMEOUT", batch, "EMAIL_SHUTDOWN_TIMEOUT", s.Worker.ShutdownTimeout)
	if s.SMTP.DataTimeout < command && !p.has(timeout, dataTimeout) {
		p.add(dataTimeout, "%s cannot be shorter than %s, which is %s", showDuration(s.SMTP.DataTimeout), timeout, showDuration(command))
	}
	// A message waits for one batch to end and is sent in the next. It may be the last of that
	// one, and go on when the batch's time is up, at least until its reply.
	task := 2*batch + s.SMTP.DataTimeout
	if s.Queue.TaskTimeout < task && !p.has("EMAIL_TASK_TIMEOUT", "EMAIL_BATCH_TIMEOUT", dataTimeout) {
		p.add("EMAIL_TASK_TIMEOUT", "%s has to be at least %s plus twice EMAIL_BATCH_TIMEOUT, together %s", showDuration(s.Queue.TaskTimeout), dataTimeout, showDuration(task))
	}
	if s.Worker.RetryMin > s.Worker.RetryMax && !p.has("EMAIL_RETRY_MIN", "EMAIL_RETRY_MAX") {
		p.add("EMAIL_RETRY_MIN", "%s cannot be longer than EMAIL_RETRY_MAX, which is %s", showDuration(s.Worker.RetryMin), showDuration(s.Worker.RetryMax))
	}
}

// check reports what is wrong with the value of this field alone.
func (f field) check(problems *Problems) {
	switch v := f.value.Interface().(type) {
	case string:
		f.checkText(problems, v)
	case Secret:
		if f.hasLines() && f.checkSecret(v.Reveal()) != nil {
			problems.add(f.name, "holds a control character, or is not UTF-8")
		} else if !f.hasLines() && hasControl(v.Reveal()) {
			problems.add(f.name, "holds a control character; is there a line end in it?")
		}
	case Addresses:
		f.checkText(problems, v.String())
		for _, address := range v {
			if err := checkAddress(address); err != nil {
				problems.add(f.name, "%v", err)
			}
		}
	case int:
		f.checkRange(problems, int64(v), parseInt)
	case Size:
		f.checkRange(problems, int64(v), parseInt)
	case time.Duration:
		f.checkRange(problems, int64(v), parseBound)
	case Seconds:
		f.checkRange(problems, int64(v), parseBound)
	}
}

func parseInt(bound string) int64 {
	n, _ := strconv.ParseInt(bound, 10, 64)
	return n
}

func parseBound(bound string) int64 {
	d, _ := time.ParseDuration(bound)
	return int64(d)
}

func (f field) checkText(problems *Problems, text string) {
	if hasControl(text) {
		problems.add(f.name, "%q holds a control character; is there a line end in it?", text)
		return
	}
	oneof, ok := f.tag("oneof")
	if !ok {
		return
	}
	allowed := strings.Split(oneof, ",")
	for _, a := range allowed {
		if text == a {
			return
		}
	}
	problems.add(f.name, "%q is not allowed; it has to be %s", text, strings.Join(allowed, " or "))
}

func (f field) checkRange(problems *Problems, n int64, bound func(string) int64) {
	low, hasMin := f.tag("min")
	high, hasMax := f.tag("max")
	switch {
	case hasMin && hasMax && (n < bound(low) || n > bound(high)):
		problems.add(f.name, "%s is out of range; it has to be %s to %s", f.show(), low, high)
	case hasMin && n < bound(low):
		problems.add(f.name, "%s is too small; it has to be at least %s", f.show(), low)
	}
}

// warnings lists what is allowed but rarely meant, one line each. Settings that already have a
// problem get no warning. queues says that the program leaves its mail to a worker, which has settings of its own.
func (s Settings) warnings(problems Problems, queues bool) []string {
	var w Problems
	s.warnURL(&w)
	s.warnLineEnds(&w)
	s.warnFiles(&w)
	for _, m := range s.mailers() {
		if s.Delivery.Backend != queueName {
			m.warnScheme(&w)
		}
		m.warnMembers(&w)
		m.warnLogin(&w)
		m.warnOAuth(&w)
		m.warnTLS(&w)
		if !queues {
			m.warnRecipients(&w)
		}
		if most := mailerVariable(m.Using, connectionsVariable+"_MAX"); m.setsConnections() && s.sets(most) {
			w.add(most, "has no effect, since %s is set: connections keep that number", m.Variable(connectionsVariable))
		}
		if s.Delivery.Backend == queueName {
			m.checkFiles(&w)
			// A program that queues its mail needs only the mailer's name.
			if m.Using != "" && !s.find(m.Using).isNameOnly() {
				m.checkHost(&w)
			}
		}
	}
	s.Intake.warn(s.sets, &w)
	s.Events.warn(s.sets, &w)
	if _, set := s.read["EMAIL_QUEUE"]; set && s.Worker.Queues[s.Queue.Name] == 0 {
		w.add("EMAIL_QUEUE", "a worker with these settings takes nothing from %q, only from EMAIL_QUEUES, which is %s", s.Queue.Name, s.Worker.Queues)
	}
	var lines []string
	for _, warning := range w {
		if !problems.has(warning.Name) {
			lines = append(lines, warning.Error())
		}
	}
	return lines
}

// warnLineEnds warns of lists with line ends between their entries or around them, which have no effect.
func (s Settings) warnLineEnds(w *Problems) {
	for _, m := range s.mailers() {
		for _, f := range m.readable() {
			if _, set := s.read[f.name]; !set || !f.isList() {
				continue
			}
			if err := lineEndIn(os.Getenv(f.name)); err != nil {
				w.add(f.name, "has a line end in it, which has no effect")
			}
		}
	}
}

// warnFiles warns of secrets in files that everybody can read, and of files that cannot be read and that this program has no
// use for.
func (s Settings) warnFiles(w *Problems) {
	for _, name := range slices.Sorted(maps.Keys(s.read)) {
		if o := s.read[name]; o.source == FromFile && isExposed(o.file) {
			w.add(name+fileSuffix, "every user of this machine can read %s: let only those who need it", o.file)
		}
	}
	for _, u := range s.unread {
		w.add(u.name+fileSuffix, "%s", u.why)
	}
}

// warnRecipients warns of mail that does not go to its recipients: in production nobody wants that. Of a value that a mailer shares
// the default mailer says it.
func (s Settings) warnRecipients(w *Problems) {
	own := func(variable string) bool { return s.Using == "" || s.sets(mailerVariable(s.Using, variable)) }
	if len(s.Delivery.OverrideRecipients) > 0 && own(overrideVariable) {
		w.add(s.Variable(overrideVariable), "no mail goes to its recipients: all of it goes to these addresses")
	}
	if !s.Delivery.AllowedRecipients.Everybody() && own(allowedVariable) {
		w.add(s.Variable(allowedVariable), "only these get mail; whoever else a message is for becomes a dead letter")
	}
}

// warnScheme warns of a URL that only a worker can have a use for, in a program that delivers itself.
func (s Settings) warnScheme(w *Problems) {
	if t := s.Delivery.URL.target; t != nil && t.unknown {
		w.add(mailerVariable(s.Using, urlVariable), "this program does not know its scheme; the worker has to")
	}
}

// warnURL warns of a URL that nothing uses.
func (s Settings) warnURL(w *Problems) {
	t := s.Delivery.URL.target
	if t != nil && s.Delivery.Backend != t.backend && s.Worker.Backend != t.backend {
		w.add(urlVariable, "has no effect: EMAIL_BACKEND is %s and EMAIL_QUEUE_BACKEND is %s", s.Delivery.Backend, s.Worker.Backend)
	}
}

func (s Settings) warnLogin(w *Problems) {
	c, v := s.SMTP, s.Variable
	password := c.Password.Reveal() != ""
	switch {
	case s.OAuth.On(): // what is missing is a problem
	case c.User != "" && !password:
		w.add(v("EMAIL_HOST_USER"), "there is no login without %s", v("EMAIL_HOST_PASSWORD"))
	case c.User == "" && password:
		w.add(v("EMAIL_HOST_PASSWORD"), "there is no login without %s", v("EMAIL_HOST_USER"))
	case password && !c.UseTLS && !c.UseSSL && !c.AllowInsecureAuth && slices.ContainsFunc(c.Hosts, hostname.IsRemote):
		w.add(v("EMAIL_HOST_PASSWORD"), "the password is not sent to %s without TLS; %s, or set %s in a network that nobody else listens to", c.Hosts, s.howTLS(), v("EMAIL_ALLOW_INSECURE_AUTH"))
	}
}

// warnOAuth warns of settings of a login with a token that is not switched on.
func (s Settings) warnOAuth(w *Problems) {
	if s.OAuth.On() {
		return
	}
	for _, f := range fields(&s) {
		if strings.HasPrefix(f.key, oauthVariable+"_") && f.show() != "" {
			w.add(s.Variable(f.key), "has no effect without %s: set it to microsoft, google or custom", s.Variable(oauthVariable))
		}
	}
}

func (s Settings) warnTLS(w *Problems) {
	c, v := s.SMTP, s.Variable
	how, implicit := v("EMAIL_USE_TLS")+" or "+v("EMAIL_USE_SSL"), v("EMAIL_USE_SSL")
	if s.hasURL() {
		how, implicit = "smtp+starttls:// or smtps://", "smtps://"
	}
	switch {
	case c.UseSSL && (c.Port == portPlain || c.Port == portStartTLS):
		w.add(v("EMAIL_PORT"), "%d is rarely the port for %s; that is %d", c.Port, implicit, portTLS)
	case !c.UseSSL && c.Port == portTLS:
		w.add(v("EMAIL_PORT"), "%d is the port for %s, which is not set", portTLS, implicit)
	}
	if c.UseTLS || c.UseSSL {
		return
	}
	for _, file := range []struct{ name, value string }{
		{v("EMAIL_SSL_CERTFILE"), c.CertFile}, {v("EMAIL_SSL_CAFILE"), c.CAFile}, {v("EMAIL_SSL_SERVER_NAME"), c.ServerName},
	} {
		if file.value != "" {
			w.add(file.name, "has no effect without %s", how)
		}
	}
}

// unknown warns of the EMAIL_ variables in environ (as os.Environ gives it) that this
// project does not read. Variables without that prefix belong to other programs.
func (s Settings) unknown(environ []string) []string {
	known := s.variables()
	var names []string
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, prefix) && !slices.Contains(known, name) && !s.isOfBadName(name) {
			names = append(names, name)
		}
	}
	names, warnings := serviceLinks(names)
	for _, name := range names {
		warnings = append(warnings, name+": is not a setting and has no effect"+s.guess(name, known))
	}
	slices.Sort(warnings)
	return warnings
}

// guess is the part of the warning that suggests what was meant.
func (s Settings) guess(name string, known []string) string {
	like := s.nearestVariable(name, known)
	mailer, variable := missingMailer(name)
	switch {
	case mailer != "" && (like == "" || like == variable):
		return "; did you mean " + variable + ", or is " + mailer + " missing in " + namesVariable + "?"
	case like != "":
		return "; did you mean " + like + "?"
	}
	return ""
}

// variables returns the names of all variables that are read.
func (s Settings) variables() []string {
	all := fields(&s)
	for _, m := range s.named {
		all = append(all, mailerFields(&s, m.name)...)
	}
	return variablesOf(all)
}

// isOfBadName reports whether a variable belongs to a mailer whose name is refused. The problem
// with the name is enough; its variables get no warning.
func (s Settings) isOfBadName(variable string) bool {
	for _, name := range s.Delivery.Mailers {
		if strings.HasPrefix(variable, mailerPrefix(name)) && !slices.Contains(s.goodNames(), name) {
			return true
		}
	}
	return false
}

// nearestVariable compares names without the prefix that all have in common: a mailer's, if
// the name begins with it, else EMAIL_.
func (s Settings) nearestVariable(name string, known []string) string {
	common := prefix
	for _, m := range s.named {
		if p := mailerPrefix(m.name); strings.HasPrefix(name, p) && len(p) > len(common) {
			common = p
		}
	}
	var ends []string
	for _, k := range known {
		if end, ok := strings.CutPrefix(k, common); ok {
			ends = append(ends, end)
		}
	}
	end := Nearest(strings.TrimPrefix(name, common), ends)
	if end == "" {
		return ""
	}
	return common + end
}

// missingMailer returns the mailer that would read a variable of this name if EMAIL_MAILERS
// named it, and the default mailer's variable for the same setting; "" if there is none.
func missingMailer(name string) (mailer, variable string) {
	for _, f := range mailerFields(&Settings{}, "x") {
		middle, ok := strings.CutSuffix(strings.TrimPrefix(name, prefix), strings.TrimPrefix(f.key, "EMAIL"))
		middle = strings.ReplaceAll(strings.ToLower(middle), "_", "-")
		if ok && checkName(middle, nil) == nil && (mailer == "" || len(middle) < len(mailer)) {
			mailer, variable = middle, f.key
		}
	}
	return mailer, variable
}
