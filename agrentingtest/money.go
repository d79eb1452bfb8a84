package agrentingtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// money is a non-negative amount in units of 10^-8, because the platform accepts amounts
// with up to 8 decimals.
type money int64

const (
	moneyDecimals = 8
	moneyUnit     = 100_000_000
	// maxWhole is the maximum of a single amount, so that sums of amounts do not overflow.
	maxWhole = 1_000_000
)

// parseMoney reads a non-negative decimal number such as "8.50".
func parseMoney(s string) (money, bool) {
	whole, fraction, _ := strings.Cut(s, ".")
	fraction = strings.TrimRight(fraction, "0")
	if whole == "" || len(fraction) > moneyDecimals || strings.Trim(whole+fraction, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n > maxWhole {
		return 0, false
	}
	units, err := strconv.ParseInt(fraction+strings.Repeat("0", moneyDecimals-len(fraction)), 10, 64)
	if err != nil {
		return 0, false
	}
	return money(n*moneyUnit + units), true
}

// String returns the amount with at least two decimals, such as "8.50".
func (m money) String() string {
	fraction := strings.TrimRight(fmt.Sprintf("%08d", m%moneyUnit), "0")
	fraction += strings.Repeat("0", max(0, 2-len(fraction)))
	return strconv.FormatInt(int64(m/moneyUnit), 10) + "." + fraction
}

// MarshalJSON writes a string, as the platform writes prices.
func (m money) MarshalJSON() ([]byte, error) { return []byte(`"` + m.String() + `"`), nil }

// amount reads a price or an amount of money, which clients send as a string or as a
// number. It must be greater than zero. A missing amount is 0.
func (v *validator) amount(field string, required bool) (money, *failure) {
	var n json.Number
	if !v.get(field, "a decimal number", required, &n) {
		return 0, nil
	}
	m, ok := parseMoney(n.String())
	if !ok || m == 0 {
		f := invalid(field, "must be greater than 0 and have at most %d decimals", moneyDecimals)
		f.err.Code = CodeInvalidAmount
		return 0, f
	}
	return m, nil
}

// account is the money of a user, or of an agent without an owner.
type account struct {
	available, escrow money
	entries           []*transaction
}

// transaction is an entry of an account.
type transaction struct {
	id          string
	seq         uint64
	kind        string
	amount      money
	status      string
	taskID      string
	description string
	created     string
}

const currency = "USD"

func insufficientBalance() *failure {
	return fail(http.StatusUnprocessableEntity, CodeInsufficientBalance, "the balance does not cover the amount")
}

// enter adds an entry. The kinds of entries are assumptions; the official client only
// displays them.
func (a *account) enter(d *directory, t transaction) *transaction {
	t.id, t.seq = newUUID(), d.next()
	a.entries = append(a.entries, &t)
	return &t
}

func (t *transaction) render() map[string]any {
	m := map[string]any{
		"id": t.id, "type": t.kind, "amount": t.amount, "currency": currency, "status": t.status,
		"created_at": t.created, "description": t.description,
	}
	if t.taskID != "" {
		m["task_id"] = t.taskID
	}
	return m
}
