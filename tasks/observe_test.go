package tasks

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

func TestCodes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, reply string
		code        int
		enhanced    string
	}{
		{"both", "250 2.0.0 Ok: queued as 4C1D", 250, "2.0.0"},
		{"a code alone", "250 Ok", 250, ""},
		{"nothing more", "250", 250, ""},
		{"a version of the server's", "250 3.1.4 is its version", 250, ""},
		{"an address", "250 2.0.0.1 took it", 250, ""},
		{"no number", "Ok 2.0.0", 0, ""},
		{"another number", "42 is the answer", 0, ""},
		{"nothing", "", 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if code, enhanced := codes(tt.reply); code != tt.code || enhanced != tt.enhanced {
				t.Errorf("codes(%q) = %d, %q; want %d, %q", tt.reply, code, enhanced, tt.code, tt.enhanced)
			}
		})
	}
}

// TestWorker_logOutcome: the line of each try, with addresses masked and in full.
func TestWorker_logOutcome(t *testing.T) {
	t.Parallel()
	many := make([]string, 12)
	for i := range many {
		many[i] = fmt.Sprintf("Ann <ann@%d.example.com>", i)
	}
	of := func(to ...string) *wire.Payload { return &wire.Payload{Message: &mailer.EmailMessage{Bcc: to}} }
	unknown := &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRcpt, Code: 550, Enhanced: "5.1.1", Text: "<bob@example.com> is unknown", Recipient: "bob@example.com"}
	for _, tt := range []struct {
		name string
		p    *wire.Payload
		o    Outcome
		want []string // parts of the log
		full string   // a part of it with addresses in full
	}{
		{"sent", of("Ann <ann@example.com>"), Outcome{
			Action: ActionSent, MessageID: "<1@x>", TaskID: "T", Queue: "q", Mailer: "m", Sender: 2, Conn: "C", Try: 1,
			Reply: "250 2.0.0 Ok for ann@example.com", Waited: 1500 * time.Millisecond, Took: 20 * time.Microsecond,
		}, []string{`{"level":"info","message_id":"<1@x>","task":"T","queue":"q","mailer":"m","try":1,"to":["a***@example.com"],"sender":2,"connection":"C","waited":"1.5s","took":"20µs",` +
			`"code":250,"enhanced":"2.0.0","reply":"250 2.0.0 Ok for a***@example.com","message":"sent"}` + "\n"}, `"to":["ann@example.com"]`},
		{"some refused", of("ann@example.com", "bob@example.com"), Outcome{Action: ActionSent, Refused: []*mailer.SendError{unknown}},
			[]string{`"to":["b***@example.com"],"class":"permanent","step":"RCPT","code":550,"enhanced":"5.1.1","error":"550 5.1.1 <b***@example.com> is unknown (RCPT)","message":"recipient refused"`}, "550 5.1.1 <bob@example.com> is unknown (RCPT)"},
		{"tried again", of("bob@example.com"), Outcome{Action: ActionRetry, Err: fmt.Errorf("once more: %w", unknown), RetryIn: time.Second},
			[]string{`"level":"warn"`, `"retry_in":"1s"`, `"class":"permanent","step":"RCPT","code":550`}, "<bob@example.com>"},
		{"the reply is the cause", of("bob@example.com"), Outcome{Action: ActionDead, Err: &mailer.SendError{Class: mailer.Unknown, Step: mailer.StepEnd, Err: unknown}},
			[]string{`"level":"error"`, `"class":"unknown","step":"RCPT","code":550`}, "<bob@example.com>"},
		{"no reply", of("bob@example.com"), Outcome{Action: ActionDead, Err: errors.New("bad")}, []string{`"class":"temporary","error":"bad"`}, `"bob@example.com"`},
		{"many", of(many...), Outcome{Action: ActionSkipped}, []string{`"a***@9.example.com"],"recipients":12`}, `"ann@9.example.com"],"recipients":12`},
		{"some of them", &wire.Payload{Meta: wire.Meta{Recipients: []string{"bob@example.com"}}, Message: &mailer.EmailMessage{To: many}}, Outcome{Action: ActionSent},
			[]string{`"to":["b***@example.com"]`}, `"to":["bob@example.com"]`},
		{"unreadable", nil, Outcome{Action: ActionDead, Err: errors.New("no message")}, []string{`"error":"no message"`}, "no message"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var masked, full bytes.Buffer
			for _, out := range []*bytes.Buffer{&masked, &full} {
				r := reporter{redact.View{Addresses: out == &full}, zerolog.New(out), nil}
				tt.o.Recipients = (&taskMessage{payload: tt.p}).report(outcome{}).Recipients
				r.logOutcome(tt.o)
			}
			for _, want := range tt.want {
				if !strings.Contains(masked.String(), want) {
					t.Errorf("no %s in\n%s", want, masked.String())
				}
			}
			if strings.Contains(masked.String(), "ann@") || strings.Contains(masked.String(), "bob@") {
				t.Errorf("an address in full:\n%s", masked.String())
			}
			if !strings.Contains(full.String(), tt.full) {
				t.Errorf("no %s in\n%s", tt.full, full.String())
			}
		})
	}
}
