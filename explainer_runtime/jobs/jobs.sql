-- The statements of store.py and results.py, by name. SQLite and PostgreSQL read the same ones: a comment
-- that begins with `postgresql` is read by PostgreSQL only. Times are seconds since 1970, `:now` is the
-- caller's clock where it gave one, else the database's.
--
-- `due` is when a job may be taken: a queued one that has to pause, or a running one whose lease ends then.
-- `fence` counts leases; who writes with an older one is refused. `event` is when the sink is told next.

-- name: table
create table if not exists explanations (
  id text /*postgresql collate "C"*/ not null primary key,
  owner text not null,
  model text not null,
  request text not null,
  key text,
  state text not null check (state in ('queued', 'running', 'done', 'failed', 'cancelled')),
  attempt integer not null default 0,
  retries integer not null default 0,
  fence bigint not null default 0,
  due double precision not null,
  cancel boolean not null default false,
  fraction double precision not null default 0,
  best text,
  created double precision not null,
  ended double precision,
  expires double precision not null,
  bytes bigint not null,
  result text,
  status integer,
  headers text,
  error text,
  event double precision,
  event_tries integer not null default 0
);

-- name: index of keys
create unique index if not exists explanations_keys on explanations (owner, key) where key is not null;

-- name: index of what waits
create index if not exists explanations_open on explanations (owner, id, state, created)
where state in ('queued', 'running');

-- name: index of lists
create index if not exists explanations_listed on explanations (owner, id);

-- name: index of limits
create index if not exists explanations_bytes on explanations (bytes);

-- name: index of events
create index if not exists explanations_events on explanations (event) where event is not null;

-- name: table of owners
create table if not exists explanation_owners (owner text not null primary key, turn bigint not null default 0);

-- name: table of blobs
create table if not exists explanation_blobs (
  digest text primary key, data bytea not null, touched double precision not null
);

-- name: alone
-- Limits are counted, then a job is written: one at a time. SQLite's transactions are that already.
select 1 /*postgresql , pg_advisory_xact_lock(1702391916)*/;

-- name: used
select
  (select count(*) from explanations where state in ('queued', 'running') and owner = :owner) as mine,
  (select count(*) from explanations where state in ('queued', 'running')) as jobs,
  (select coalesce(sum(bytes), 0) from explanations) as bytes;

-- name: submit
insert into explanations (id, owner, model, request, key, state, due, created, expires, bytes)
values (:id, :owner, :model, :request, :key, 'queued', :now, :now, :now + :keep, :bytes)
returning *;

-- name: owner
insert into explanation_owners (owner) values (:owner) on conflict do nothing;

-- name: by key
select * from explanations where owner = :owner and key = :key;

-- name: get
select * from explanations where id = :id and owner = coalesce(:owner, owner);

-- name: list
select * from explanations
where owner = :owner and model = coalesce(:model, model) and state = coalesce(:state, state)
  and id < coalesce(:after, 'g')
order by id desc limit :limit;

-- name: lost
-- What nobody does and nobody will: cancelled, tried too often, or too late.
update explanations set
  state = case when cancel then 'cancelled' else 'failed' end,
  error = case when cancel then null
    when attempt >= :attempts then 'given up after ' || attempt || ' attempts: each time its server fell silent'
    else 'not done before it expired' end,
  status = case when cancel then null else 503 end,
  event = case when cancel or not :events then null else :now end,
  ended = :now, expires = :now + :keep
where id in (
  select id from explanations
  where state in ('queued', 'running') and due <= :now and (cancel or attempt >= :attempts or expires <= :now)
  order by id /*postgresql for update skip locked*/
)
returning *;

-- name: turns
-- Owners of whom a job is due, of the models `/one/another/` or of all: who was served least recently is first.
select o.owner from explanation_owners o
where exists (
  select 1 from explanations e
  where e.owner = o.owner and e.state in ('queued', 'running') and e.due <= :now
    and not e.cancel and e.attempt < :attempts and e.expires > :now
    and (cast(:models as text) is null or replace(:models, '/' || e.model || '/', '') <> :models)
)
order by o.turn, o.owner;

-- name: lease
-- The oldest of them.
update explanations set state = 'running', attempt = attempt + 1, fence = fence + 1, due = :now + :lease
where id = (
  select e.id from explanations e
  where e.owner = :owner and e.state in ('queued', 'running') and e.due <= :now
    and not e.cancel and e.attempt < :attempts and e.expires > :now
    and (cast(:models as text) is null or replace(:models, '/' || e.model || '/', '') <> :models)
  order by e.id limit 1 /*postgresql for update skip locked*/
)
returning *;

-- name: served
update explanation_owners set turn = (select max(turn) + 1 from explanation_owners) where owner = :owner;

-- name: heartbeat
update explanations
set due = :now + :lease, fraction = coalesce(:fraction, fraction), best = coalesce(:best, best)
where id = :id and fence = :fence and state = 'running'
returning cancel;

-- name: finish
update explanations set
  state = :state, result = :result, bytes = bytes + :bytes, status = :status, headers = :headers,
  error = :error, event = case when :events then :now else null end, ended = :now, expires = :now + :keep,
  fraction = case when :state = 'done' then 1 else fraction end
where id = :id and fence = :fence and state = 'running'
returning id;

-- name: release
update explanations
set state = 'queued', attempt = attempt - 1, retries = retries + :again, due = :now + :pause
where id = :id and fence = :fence and state = 'running'
returning id;

-- name: cancel
update explanations set
  cancel = true,
  ended = case state when 'queued' then :now else ended end,
  expires = case state when 'queued' then :now + :keep else expires end,
  state = case state when 'queued' then 'cancelled' else state end
where id = :id and owner = :owner and state in ('queued', 'running')
returning *;

-- name: remove
delete from explanations where id = :id and owner = :owner and state not in ('queued', 'running') returning id;

-- name: expire
delete from explanations where id in (
  select id from explanations where expires <= :now and state not in ('queued', 'running')
  order by id /*postgresql for update skip locked*/
)
returning id;

-- name: forget
delete from explanation_owners
where not exists (select 1 from explanations e where e.owner = explanation_owners.owner);

-- name: standing
select state, count(*) as jobs, :now - min(created) as age
from explanations where state in ('queued', 'running') group by state;

-- name: named
select request as digest from explanations union select result from explanations where result is not null;

-- name: events
update explanations set
  event = :now + case when event_tries < 6 then 10 * (1 << event_tries) else 600 end,
  event_tries = event_tries + 1
where id in (
  select id from explanations where event <= :now order by event limit :limit /*postgresql for update skip locked*/
)
returning *;

-- name: told
update explanations set event = null where id = :id;

-- name: put
insert into explanation_blobs (digest, data, touched) values (:digest, :data, :now)
on conflict (digest) do update set touched = excluded.touched;

-- name: data
select data from explanation_blobs where digest = :digest;

-- name: sweep
delete from explanation_blobs where touched <= :now - :age and digest not in (
  select request from explanations union select result from explanations where result is not null
);
