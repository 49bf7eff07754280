package mailertest

// connectionChecks are about Open, Close and what SendMessages opens by itself.
func connectionChecks() []check {
	return []check{
		{
			name: "open_twice",
			rule: "Open makes sure that a connection is open and reports whether this call opened it",
			run: func(p *probe) {
				p.open(true)
				p.open(false)
				p.connected(1)
				p.close()
			},
		},
		{
			name: "close_not_open",
			rule: "closing a backend that is not open is not an error",
			run: func(p *probe) {
				p.close()
				p.close()
				p.connected(0)
			},
		},
		{
			name: "close_twice",
			rule: "closing a backend that was closed is not an error",
			run: func(p *probe) {
				p.open(true)
				p.close()
				p.close()
			},
		},
		{
			name: "reopen",
			rule: "a closed backend can be opened again",
			run: func(p *probe) {
				p.open(true)
				p.close()
				p.open(true)
				want := p.render(sample(0))
				p.sendAll(sample(0))
				p.isOpen()
				p.connected(2)
				p.close()
				p.arrived(want...)
			},
		},
		{
			name:  "close_dead",
			rule:  "closing a backend whose connection has died is not an error, and it can be opened again",
			needs: needBreak,
			run: func(p *probe) {
				p.open(true)
				p.Break()
				p.close()
				p.open(true)
				want := p.render(sample(0))
				p.sendAll(sample(0))
				p.close()
				p.arrived(want...)
			},
		},
		{
			name: "send_closed",
			rule: "SendMessages opens a connection if none is open, and closes it again",
			run: func(p *probe) {
				want := p.render(samples(2)...)
				p.sendAll(sample(0))
				p.isClosed()
				p.sendAll(sample(1))
				p.isClosed()
				p.arrived(want...)
			},
		},
		{
			name: "send_open",
			rule: "SendMessages leaves a connection open that was open",
			run: func(p *probe) {
				want := p.render(samples(2)...)
				p.open(true)
				p.sendAll(sample(0))
				p.isOpen()
				p.sendAll(sample(1))
				p.isOpen()
				p.connected(1)
				p.close()
				p.arrived(want...)
			},
		},
		{
			name: "one_connection",
			rule: "SendMessages sends all messages over one connection",
			run: func(p *probe) {
				want := p.render(samples(3)...)
				p.sendAll(samples(3)...)
				p.connected(1)
				p.arrived(want...)
			},
		},
		{
			name: "send_nothing",
			rule: "with no messages SendMessages opens nothing and returns 0, nil",
			run: func(p *probe) {
				p.sendAll()
				p.connected(0)
				p.isClosed()
				p.open(true)
				p.sendAll()
				p.isOpen()
				p.close()
				p.arrived()
			},
		},
		{
			name: "send_to_nobody",
			rule: "with no message that has a recipient SendMessages opens nothing and returns 0, nil",
			run: func(p *probe) {
				p.noErrors(p.send(p.ctx, 0, unaddressed(0), unaddressed(1)))
				p.connected(0)
				p.isClosed()
				p.arrived()
			},
		},
	}
}
