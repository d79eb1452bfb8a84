package agrentingtest

import (
	"net/http"
	"slices"
	"time"
)

// payment is money that a client has locked for a task.
type payment struct {
	id, kind string
	created  time.Time
}

// lock moves the price of a job into escrow. The caller must have checked that the
// balance is sufficient.
func (j *job) lock(d *directory, now time.Time) {
	a := j.client.account()
	a.available -= j.spec.price
	a.escrow += j.spec.price
	j.escrow = j.spec.price
	j.enter(d, a, "escrow_lock", now)
}

// settle pays the provider of a completed job, or returns the money to the client.
func (j *job) settle(d *directory, now time.Time) {
	if j.escrow == 0 {
		return
	}
	client := j.client.account()
	client.escrow -= j.escrow
	if j.status == statusCompleted {
		earner := party{user: j.provider.owner, agent: j.provider}.account()
		earner.available += j.escrow
		j.enter(d, client, "escrow_release", now)
		j.enter(d, earner, "earning", now)
	} else {
		client.available += j.escrow
		j.enter(d, client, "escrow_refund", now)
	}
	j.escrow = 0
}

func (j *job) enter(d *directory, a *account, kind string, now time.Time) {
	t := transaction{
		kind: kind, amount: j.escrow, status: "completed", description: j.flow.noun + " " + j.id, created: timestamp(now),
	}
	if j.flow == taskFlow {
		t.taskID = j.id
	}
	a.enter(d, t)
}

// getBalance returns the balance of the user, or of an agent without an owner.
func (s *Server) getBalance(x *exchange) (reply, *failure) {
	a := x.who.party().account()
	return reply{status: http.StatusOK, data: map[string]any{
		"available": a.available, "escrow": a.escrow, "total": a.available + a.escrow, "currency": currency,
	}}, nil
}

// listTransactions lists the transactions of the account, optionally of only one type.
func (s *Server) listTransactions(x *exchange) (reply, *failure) {
	kind := x.r.URL.Query().Get("type")
	entries := slices.DeleteFunc(slices.Clone(x.who.party().account().entries), func(t *transaction) bool {
		return kind != "" && t.kind != kind
	})
	return page(x, entries, func(t *transaction) uint64 { return t.seq }, (*transaction).render)
}

// transfer reads the amount of a deposit, a withdrawal, or a payment intent, and the
// member that names the method.
func transfer(raw []byte, how string) (money, string, *failure) {
	body, f := decodeObject(raw)
	if f != nil {
		return 0, "", f
	}
	v := validator{fields: body}
	m, f := v.amount("amount", true)
	if c := v.text("currency", false, 10); c != "" && c != currency {
		v.complain("currency", "must be "+currency)
	}
	method := v.text(how, false, 100)
	if f := v.failure(); f != nil {
		return 0, "", f
	}
	return m, method, f
}

// deposit adds money at once, because it is simulated.
func (s *Server) deposit(x *exchange) (reply, *failure) {
	m, method, f := transfer(x.body, "payment_method")
	if f != nil {
		return reply{}, f
	}
	a := x.who.party().account()
	a.available += m
	now := s.now()
	t := a.enter(s.dir, transaction{kind: "deposit", amount: m, status: "completed", description: method, created: timestamp(now)})
	s.dir.announceTransfer(x.who.party(), "payment.deposited", t, now)
	return reply{status: http.StatusCreated, data: map[string]any{"transaction_id": t.id, "status": t.status}}, nil
}

// withdraw subtracts money and processes the withdrawal at once. The response still has
// the status pending, as on the platform.
func (s *Server) withdraw(x *exchange) (reply, *failure) {
	m, address, f := transfer(x.body, "withdrawal_address_id")
	if f != nil {
		return reply{}, f
	}
	a := x.who.party().account()
	if a.available < m {
		return reply{}, insufficientBalance()
	}
	a.available -= m
	now := s.now()
	t := a.enter(s.dir, transaction{kind: "withdrawal", amount: m, status: "pending", description: address, created: timestamp(now)})
	r := reply{status: http.StatusCreated, data: map[string]any{"transaction_id": t.id, "status": t.status}}
	t.status = "completed"
	s.dir.announceTransfer(x.who.party(), "withdrawal.processed", t, now)
	return r, nil
}

// createPaymentIntent responds as if a payment provider waited for the money. It does not
// move money.
func (s *Server) createPaymentIntent(x *exchange) (reply, *failure) {
	if _, _, f := transfer(x.body, "payment_type"); f != nil {
		return reply{}, f
	}
	return reply{status: http.StatusCreated, data: map[string]any{"id": newUUID(), "status": "pending"}}, nil
}

// payTask locks the price of a task, or the base price of its provider if the task has
// none. That a second payment is refused is an assumption. A completed task can be paid
// too, because the official adapter creates a task and then pays for it. By then, a
// sandbox agent may have completed it.
func (s *Server) payTask(x *exchange) (reply, *failure) {
	body, f := decodeObject(x.body)
	if f != nil {
		return reply{}, f
	}
	v := validator{fields: body}
	kind, id := v.text("payment_type", false, 50), v.text("task_id", false, 100)
	v.text("crypto_currency", false, 10) // all amounts are in USD here
	if f := v.failure(); f != nil {
		return reply{}, f
	}
	if kind == "" {
		kind = "crypto"
	}
	j, f := s.clientJob(x, taskFlow)
	switch {
	case f != nil:
		return reply{}, f
	case id != "" && id != j.id:
		return reply{}, invalid("task_id", "is not the task in the path")
	case final(j.status) && j.status != statusCompleted:
		return reply{}, invalid("status", "a task that is %s cannot be paid", j.status)
	case j.payment != nil:
		return reply{}, invalid("task_id", "is already paid")
	}
	if j.spec.price == 0 && j.provider != nil {
		j.spec.price, _ = parseMoney(j.provider.profile.basePrice)
	}
	switch {
	case j.spec.price == 0:
		f := invalid("amount", "the task has no max_price, and its provider no base_price")
		f.err.Code = CodeInvalidAmount
		return reply{}, f
	case j.client.account().available < j.spec.price:
		return reply{}, insufficientBalance()
	}
	j.payment = &payment{id: newUUID(), kind: kind, created: s.now()}
	j.lock(s.dir, s.now())
	s.dir.announcePayment(j, "payment.confirmed", s.now())
	if j.status == statusCompleted {
		j.settle(s.dir, s.now())
	}
	return reply{status: http.StatusCreated, data: j.renderPayment()}, nil
}

// getPayment returns the payment of a task.
func (s *Server) getPayment(x *exchange) (reply, *failure) {
	j, f := s.job(x, taskFlow)
	if f == nil && j.payment == nil {
		f = notFound("payment")
	}
	if f != nil {
		return reply{}, f
	}
	return reply{status: http.StatusOK, data: j.renderPayment()}, nil
}

// paymentStatus returns the status of the payment, which is an assumption.
func (j *job) paymentStatus() string {
	switch {
	case j.status == statusCompleted:
		return "released"
	case final(j.status):
		return "refunded"
	}
	return "escrowed"
}

func (j *job) renderPayment() map[string]any {
	return map[string]any{
		"id": j.payment.id, "task_id": j.id, "amount": j.spec.price, "currency": currency, "status": j.paymentStatus(),
		"payment_type": j.payment.kind, "created_at": timestamp(j.payment.created),
	}
}
