package store

import (
	"context"
	"fmt"
	"time"
)

// ListGatewayRepairs returns repairs of the gateway's rows whose right value the
// other rows tell.
func (db *DB) ListGatewayRepairs(ctx context.Context) (list []Repair, err error) {
	patient := db.patient()
	for _, find := range []func(context.Context) ([]Repair, error){
		patient.listRequestRepairs, patient.listNameRepairs, patient.listBalanceRepairs,
	} {
		found, err := find(ctx)
		if err != nil {
			return nil, err
		}
		list = append(list, found...)
	}
	return list, nil
}

// listRequestRepairs removes what nobody will ask the worker for any more: ends
// of intents never change.
func (db *DB) listRequestRepairs(ctx context.Context) ([]Repair, error) {
	return all(ctx, db, func(r rows) (Repair, error) {
		var id, state string
		err := r.Scan(&id, &state)
		return Repair{
			Check: "intent_request_wrong", Subject: "intent/" + id,
			Text:      fmt.Sprintf("intent %s: remove its request, it has ended as %s", id, state),
			Data:      map[string]any{"state": state},
			statement: `DELETE FROM gateway_intent_requests WHERE intent_id = $1`, args: []any{id},
		}, err
	}, `
		SELECT i.id, i.state FROM gateway_intent_requests r JOIN gateway_intents i ON i.id = r.intent_id
		WHERE i.state NOT IN ('pending', 'attention') ORDER BY i.id LIMIT $1`, repairBatch)
}

// listNameRepairs frees names of what will never be there again.
func (db *DB) listNameRepairs(ctx context.Context) ([]Repair, error) {
	return all(ctx, db, func(r rows) (Repair, error) {
		var user, name, intent string
		err := r.Scan(&user, &name, &intent)
		return Repair{
			Check: "name_wrong", Subject: "intent/" + intent,
			Text:      fmt.Sprintf("name %q of user %s: free it, nothing has it any more", name, user),
			Data:      map[string]any{"name": name, "user": user},
			statement: `DELETE FROM gateway_names WHERE user_id = $1 AND name = $2 AND intent_id = $3`, args: []any{user, name, intent},
		}, err
	}, `
		SELECT n.user_id, n.name, n.intent_id FROM gateway_names n
		JOIN gateway_intents i ON i.id = n.intent_id
		LEFT JOIN gateway_projects p ON p.intent_id = i.id
		WHERE i.state IN ('rejected', 'canceled') OR p.state = 'deleted' ORDER BY n.intent_id LIMIT $1`, repairBatch)
}

// listBalanceRepairs makes balances the sum of the ledger. One that moves
// meanwhile moves with its postings, and is listed again.
func (db *DB) listBalanceRepairs(ctx context.Context) ([]Repair, error) {
	return all(ctx, db, func(r rows) (Repair, error) {
		var account string
		var from *int64
		var to int64
		if err := r.Scan(&account, &from, &to); err != nil {
			return Repair{}, err
		}
		repair := Repair{
			Check: "billing_balance_wrong", Subject: "account/" + account, Data: map[string]any{"from": from, "to": to},
			Text:      fmt.Sprintf("account %s: make its balance %d, there was none", account, to),
			statement: `INSERT INTO gateway_billing_accounts (account, balance_micros) VALUES ($1, $2) ON CONFLICT (account) DO NOTHING`,
			args:      []any{account, to},
		}
		if from != nil {
			repair.Text = fmt.Sprintf("account %s: set its balance from %d to %d, the sum of its postings", account, *from, to)
			repair.statement = `UPDATE gateway_billing_accounts SET balance_micros = $2 WHERE account = $1 AND balance_micros = $3`
			repair.args = []any{account, to, *from}
		}
		return repair, nil
	}, `SELECT account, has, must FROM (`+balances+`) AS a WHERE has IS NULL OR has <> must ORDER BY account LIMIT $1`, repairBatch)
}

// ListUnsettled returns builds that were over before a moment and whose session
// is open.
func (db *DB) ListUnsettled(ctx context.Context, age time.Duration) ([]*AppBuild, error) {
	now, err := db.clock(ctx)
	if err != nil {
		return nil, err
	}
	return all(ctx, db.patient(), scanAppBuild, `SELECT `+appBuildColumns+` FROM gateway_builds b
		JOIN gateway_billing_sessions s ON s.build_id = b.id
		WHERE s.state = 'open' AND b.finished_at < $1 ORDER BY b.id LIMIT $2`, micros(now.Add(-age)), repairBatch)
}
