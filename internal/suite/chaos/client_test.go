package chaos

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// program is a way in which a program hands messages in. All of them run at the same time, each with its own messages.
type program struct {
	name   string
	keyed  bool // its messages have idempotency keys
	again  bool // what was not acknowledged is handed in again until it is
	size   int  // messages handed in together
	handIn func(c *client, ctx context.Context, numbers []int) []outcome
	first  func(c *client, ctx context.Context, number int) // if not nil, what it does at first, without waiting for an answer
}

// outcome is what a program has heard of a message. The zero value is nothing.
type outcome struct {
	id     string // it was acknowledged
	denied bool   // it was told that the message is not queued
}

// programs are all of them. A message is of the program that its number divided by theirs leaves.
func programs() []program {
	return []program{
		{name: "SMTP, one by one over a connection", keyed: true, again: true, size: 1, handIn: (*client).submit},
		{name: "SMTP, likewise without keys", size: 1, handIn: (*client).submit},
		{name: "SMTP, pipelined in chunks (BDAT)", keyed: true, again: true, size: 20, handIn: (*client).stream},
		{name: "SMTP, likewise without keys", size: 20, handIn: (*client).stream},
		{name: "SMTP, pipelined (DATA)", keyed: true, again: true, size: 20, handIn: (*client).pipeline},
		{name: "SMTP, away before the reply", keyed: true, size: 1, first: (*client).leaveSMTP},
		{name: "SMTP, likewise without keys", size: 1, first: (*client).leaveSMTP},
		{name: "SMTP, away before the reply, and back", keyed: true, again: true, size: 1, first: (*client).leaveSMTP, handIn: (*client).submit},
		{name: "POST /emails", keyed: true, again: true, size: 1, handIn: (*client).postEmail},
		{name: "POST /emails, away before the answer, and back", keyed: true, again: true, size: 1, first: (*client).leaveHTTP, handIn: (*client).postEmail},
		{name: "POST /messages (message/rfc822)", keyed: true, again: true, size: 1, handIn: (*client).postMessage},
		{name: "POST /emails/batch", keyed: true, again: true, size: 20, handIn: (*client).postBatch},
		{name: "POST /emails/batch, without keys", size: 20, handIn: (*client).postBatch},
	}
}

// programOf is the program of a message.
func programOf(number int) int { return number % len(programs()) }

// clients are the programs, and what they know of their messages.
type clients struct {
	load   *load
	smtp   []string // where the intakes listen
	http   []string
	secret string // of an API key
	client *http.Client

	mu     sync.Mutex
	denied map[int]bool // messages without a key that a program was told to be not queued
}

// run hands all messages in, each as soon as it is due.
func (c *clients) run(ctx context.Context) {
	start := time.Now()
	var wg sync.WaitGroup
	defer wg.Wait()
	for i, p := range programs() {
		wg.Go(func() { c.runProgram(ctx, start, i, p) })
	}
}

func (c *clients) runProgram(ctx context.Context, start time.Time, at int, p program) {
	var groups [][]int
	for n := at; n < c.load.plan.mails; n += len(programs()) {
		if last := len(groups) - 1; last >= 0 && len(groups[last]) < p.size {
			groups[last] = append(groups[last], n)
		} else {
			groups = append(groups, []int{n})
		}
	}
	one := &client{clients: c, keyed: p.keyed, turn: at}
	defer one.hangUp()
	for i, numbers := range groups {
		if !until(ctx, start.Add(c.load.plan.span*time.Duration(i)/time.Duration(len(groups)))) {
			return
		}
		one.give(ctx, p, numbers)
	}
}

// give hands messages in as the program does. Of several that are not all acknowledged it repeats the whole: HTTP knows a
// key for them together.
func (c *client) give(ctx context.Context, p program, numbers []int) {
	if p.first != nil {
		p.first(c, ctx, numbers[0])
		if p.handIn == nil {
			c.note(numbers, make([]outcome, len(numbers)), false)
			return
		}
	}
	for {
		all := p.handIn(c, ctx, numbers)
		if c.note(numbers, all, p.again) || !p.again {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// note keeps what is known of messages, and reports whether all are acknowledged.
func (c *client) note(numbers []int, all []outcome, again bool) bool {
	l, whole := c.load, true
	l.mu.Lock()
	defer l.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, number := range numbers {
		switch {
		case i < len(all) && all[i].id != "":
			l.tasks[number] = all[i].id
		case again:
			whole = false
			l.again++
		case i < len(all) && all[i].denied:
			c.denied[number] = true
		default:
			l.unanswered[number] = true
		}
	}
	return whole
}

// client is one program while it runs.
type client struct {
	*clients

	keyed bool
	turn  int // which of the intakes it asks
	conn  *textproto.Conn
	raw   net.Conn
}

// recipients are those of a message.
func recipients(number int) []string {
	all := []string{fmt.Sprintf("u%d@example.com", number)}
	if partlyRefused(number) {
		all = append(all, fmt.Sprintf("nobody%d@example.com", number))
	}
	if number%29 == 7 {
		all = append(all, fmt.Sprintf("later%d@example.com", number))
	}
	return all
}

func partlyRefused(number int) bool { return number%23 == 5 }

// partly reports whether the relay refuses one recipient of a message for good, and takes it for others.
func partly(f faults, number int) bool { return f.others && partlyRefused(number) }

// finished is a message as programs hand it in by SMTP.
func finished(number int) []byte {
	var b bytes.Buffer
	if _, err := message(number).WriteTo(&b); err != nil {
		panic(err) // it is a good one
	}
	return b.Bytes()
}

// isFinished reports whether a message is handed in as bytes.
func isFinished(number int) bool {
	name := programs()[programOf(number)].name
	return strings.HasPrefix(name, "SMTP") || strings.HasPrefix(name, "POST /messages")
}

func keyOf(number int) string { return fmt.Sprint("mail-", number) }

// submission is a message with the fields that are for the intake.
func (c *client) submission(number int) []byte {
	if !c.keyed {
		return finished(number)
	}
	return append([]byte("Idempotency-Key: "+keyOf(number)+"\r\n"), finished(number)...)
}

// envelope are the commands before the message.
func envelope(number int) (commands []string) {
	commands = []string{"MAIL FROM:<shop@example.com>"}
	for _, to := range recipients(number) {
		commands = append(commands, "RCPT TO:<"+to+">")
	}
	return commands
}

// patience is how long a program waits for one answer.
const patience = 40 * time.Second

// connect logs in at an intake, unless it is connected. After an error it turns to the next one.
func (c *client) connect(ctx context.Context) bool {
	if c.conn != nil {
		_ = c.raw.SetDeadline(time.Now().Add(patience))
		return true
	}
	c.turn++
	dialer := net.Dialer{Timeout: patience}
	raw, err := dialer.DialContext(ctx, "tcp", c.smtp[c.turn%len(c.smtp)])
	if err != nil {
		return false
	}
	_ = raw.SetDeadline(time.Now().Add(patience))
	c.raw, c.conn = raw, textproto.NewConn(raw)
	login := base64.StdEncoding.EncodeToString([]byte("\x00shop\x00" + c.secret))
	if _, _, err := c.conn.ReadResponse(220); err != nil {
		return c.hangUp()
	}
	for _, command := range []struct {
		line string
		code int
	}{{"EHLO client.example.com", 250}, {"AUTH PLAIN " + login, 235}} {
		if code, _ := c.say(command.line); code != command.code {
			return c.hangUp()
		}
	}
	return true
}

// hangUp ends the connection. It returns false.
func (c *client) hangUp() bool {
	if c.conn != nil {
		_ = c.conn.Close()
	}
	c.conn, c.raw = nil, nil
	return false
}

// say gives a command and returns the reply: 0 if there is none.
func (c *client) say(command string) (code int, text string) {
	if c.conn.PrintfLine("%s", command) != nil {
		return 0, ""
	}
	return c.reply()
}

func (c *client) reply() (code int, text string) {
	code, text, _ = c.conn.ReadResponse(0)
	return code, text
}

// heard is what a reply to a message says.
func heard(code int, text string) outcome {
	if _, id, ok := strings.Cut(text, "Ok: queued as "); ok && code == 250 {
		return outcome{id: id}
	}
	if _, id, ok := strings.Cut(text, "enqueue dead replay "); ok { // an earlier try was accepted, and the relay has refused it for good
		return outcome{id: id}
	}
	return outcome{denied: code != 0 && !strings.Contains(text, "may have been queued")}
}

// submit waits for the reply to each command.
func (c *client) submit(ctx context.Context, numbers []int) []outcome {
	if !c.connect(ctx) {
		return []outcome{{denied: true}}
	}
	for _, command := range append(envelope(numbers[0]), "DATA") {
		code, _ := c.say(command)
		if code/100 != 2 && code != 354 {
			c.hangUp()
			return []outcome{{denied: true}}
		}
	}
	code, text := c.data(numbers[0])
	if code/100 != 2 {
		c.hangUp()
	}
	return []outcome{heard(code, text)}
}

// data sends a message after 354.
func (c *client) data(number int) (code int, text string) {
	if !c.write(number) {
		return 0, ""
	}
	return c.reply()
}

func (c *client) write(number int) bool {
	w := c.conn.DotWriter()
	_, err := w.Write(c.submission(number))
	return err == nil && w.Close() == nil
}

// stream sends all messages before it reads a reply.
func (c *client) stream(ctx context.Context, numbers []int) []outcome {
	if !c.connect(ctx) {
		return slices.Repeat([]outcome{{denied: true}}, len(numbers))
	}
	all := make([]outcome, len(numbers))
	for _, number := range numbers {
		raw := c.submission(number)
		for _, command := range envelope(number) {
			fmt.Fprintf(c.conn.W, "%s\r\n", command)
		}
		fmt.Fprintf(c.conn.W, "BDAT %d LAST\r\n", len(raw))
		_, _ = c.conn.W.Write(raw) // an error stays in the writer
	}
	_ = c.conn.W.Flush() // there may be replies all the same
	for i, number := range numbers {
		for range envelope(number) {
			c.reply()
		}
		code, text := c.reply()
		if all[i] = heard(code, text); code == 0 || code == 421 {
			c.hangUp()
			return all
		}
	}
	return all
}

// pipeline sends the envelope of a message right behind the message before.
func (c *client) pipeline(ctx context.Context, numbers []int) []outcome {
	if !c.connect(ctx) {
		return slices.Repeat([]outcome{{denied: true}}, len(numbers))
	}
	all := make([]outcome, len(numbers))
	begin := func(i int) {
		for _, command := range append(envelope(numbers[i]), "DATA") {
			fmt.Fprintf(c.conn.W, "%s\r\n", command)
		}
		_ = c.conn.W.Flush() // there may be replies all the same
	}
	begin(0)
	for i, number := range numbers {
		code := 0
		for range len(envelope(number)) + 1 {
			code, _ = c.reply()
		}
		if code != 354 || !c.write(number) {
			c.hangUp()
			return all
		}
		if i+1 < len(numbers) {
			begin(i + 1)
		}
		code, text := c.reply()
		if all[i] = heard(code, text); code == 0 || code == 421 {
			c.hangUp()
			return all
		}
	}
	return all
}

// leaveSMTP sends a message and does not wait for the reply; every third time it leaves in the middle of the message.
func (c *client) leaveSMTP(ctx context.Context, number int) {
	if !c.connect(ctx) {
		return
	}
	defer c.hangUp()
	for _, command := range append(envelope(number), "DATA") {
		if code, _ := c.say(command); code/100 > 3 || code == 0 {
			return
		}
	}
	if number%3 > 0 {
		c.write(number)
		return
	}
	raw := bytes.ReplaceAll(c.submission(number), []byte("\r\n."), []byte("\r\n.."))
	_, _ = c.conn.W.Write(raw[:len(raw)/2])
	_ = c.conn.W.Flush()
}

// post makes a request at the intakes in turn.
func (c *client) post(ctx context.Context, path, kind, key string, body []byte) (status int, answer []byte) {
	c.turn++
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.http[c.turn%len(c.http)]+path, bytes.NewReader(body))
	if err != nil {
		panic(err) // nothing in it is wrong
	}
	request.GetBody = nil // net/http is not to repeat it
	request.Header.Set("Authorization", "Bearer "+c.secret)
	request.Header.Set("Content-Type", kind)
	if c.keyed {
		request.Header.Set("Idempotency-Key", key)
	}
	response, err := c.client.Do(request)
	if err != nil {
		return 0, nil
	}
	defer func() { _ = response.Body.Close() }()
	var b bytes.Buffer
	if _, err := b.ReadFrom(response.Body); err != nil {
		return 0, nil
	}
	return response.StatusCode, b.Bytes()
}

// email is a message in the dialect of the API.
func email(number int) map[string]any {
	m := message(number)
	return map[string]any{
		"from": m.FromEmail, "to": recipients(number), "subject": m.Subject, "text": m.Body,
		"headers": map[string]string{"Message-ID": m.MessageID},
	}
}

func asJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // texts
	}
	return data
}

// answered is what an answer to a request with one message says.
func answered(status int, data []byte) outcome {
	var answer struct {
		ID string `json:"id"`
	}
	if status == http.StatusOK && json.Unmarshal(data, &answer) == nil {
		return outcome{id: answer.ID}
	}
	return outcome{denied: status == http.StatusServiceUnavailable}
}

func (c *client) postEmail(ctx context.Context, numbers []int) []outcome {
	return []outcome{answered(c.post(ctx, "/emails", "application/json", keyOf(numbers[0]), asJSON(email(numbers[0]))))}
}

func (c *client) postMessage(ctx context.Context, numbers []int) []outcome {
	q := url.Values{"from": {"shop@example.com"}, "to": recipients(numbers[0])}
	return []outcome{answered(c.post(ctx, "/messages?"+q.Encode(), "message/rfc822", keyOf(numbers[0]), finished(numbers[0])))}
}

func (c *client) postBatch(ctx context.Context, numbers []int) []outcome {
	emails := make([]any, len(numbers))
	for i, number := range numbers {
		emails[i] = email(number)
	}
	status, data := c.post(ctx, "/emails/batch", "application/json", "batch-"+keyOf(numbers[0]), asJSON(emails))
	var answer struct {
		Data   []struct{ ID string }
		Queued []struct {
			Index int
			ID    string
		}
	}
	all := make([]outcome, len(numbers))
	_ = json.Unmarshal(data, &answer) // where there was none nothing is known
	for i := range all {
		all[i].denied = status == http.StatusServiceUnavailable
		if status == http.StatusOK && i < len(answer.Data) {
			all[i].id = answer.Data[i].ID
		}
	}
	for _, q := range answer.Queued {
		all[q.Index].id = q.ID
	}
	return all
}

// leaveHTTP makes a request and goes away when it is written.
func (c *client) leaveHTTP(ctx context.Context, number int) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { cancel() }})
	c.postEmail(ctx, []int{number})
}
