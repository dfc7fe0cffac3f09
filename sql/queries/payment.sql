-- name: PaymentFind :many
SELECT
    payment.kind,
    payment.ref,
    payment.amount_minor,
    payment.at,
    payment.player_id,
    payment.refusal
FROM payment
WHERE (payment.kind, payment.ref) IN (
    SELECT unnest(@kinds::text[]), unnest(@refs::text[])
);

-- name: PaymentInsert :exec
-- PaymentInsert adds deposits and withdrawals; refused ones moved no money.
WITH given AS (
    SELECT
        unnest(@kind::text[]) AS kind,
        unnest(@ref::text[]) AS ref,
        unnest(@amount_minor::bigint[]) AS amount_minor,
        unnest(@at::timestamptz[]) AS at,
        unnest(@player_id::bigint[]) AS player_id,
        unnest(@refused::boolean[]) AS refused
)
INSERT INTO payment (kind, ref, amount_minor, at, player_id, refusal)
SELECT kind, ref, amount_minor, at, player_id, CASE WHEN refused THEN 'insufficient_funds' END
FROM given;
