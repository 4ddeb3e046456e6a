"""The guide's stack: FastAPI, SQLAlchemy with asyncpg, the guide's pool, Celery behind the creation of a task.

Straight to PostgreSQL, without the pooler that our API goes through. Requests are authenticated by a bearer token (HS256), bodies and
answers are checked by Pydantic, passwords are Argon2id with the parameters of our API.
"""

import asyncio
import datetime
import os
import uuid
from typing import Annotated, Any

import jwt
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from celery import Celery
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import JSON, Uuid, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SECRET = os.environ["PEER_SECRET"]
engine = create_async_engine(
    os.environ["PEER_DATABASE_URL"], pool_size=20, max_overflow=30, pool_timeout=30, pool_recycle=3600, pool_pre_ping=True
)
sessions = async_sessionmaker(engine, expire_on_commit=False)
celery = Celery("peer_api", broker=os.environ["PEER_REDIS_URL"])
hasher = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)
bearer = HTTPBearer()
app = FastAPI()


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    name: Mapped[str]
    password_hash: Mapped[str]


class Task(Base):
    __tablename__ = "tasks"
    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True, default=uuid.uuid4)
    user_id: Mapped[uuid.UUID]
    name: Mapped[str | None]
    status: Mapped[str] = mapped_column(default="pending")
    priority: Mapped[int] = mapped_column(default=5)
    spec: Mapped[dict] = mapped_column(JSON)
    created_at: Mapped[datetime.datetime] = mapped_column(server_default=func.now())
    records: Mapped[int] = mapped_column(default=0)
    pages: Mapped[int] = mapped_column(default=0)
    compute_units_used: Mapped[int] = mapped_column(default=0)


class FieldSpec(BaseModel):
    name: str = Field(min_length=1, max_length=63)
    selector: str | None = None
    type: str = "Text"


class NewTask(BaseModel):
    name: str | None = None
    url: str = Field(min_length=8, max_length=2048)
    items: str | None = None
    fields: list[FieldSpec] = Field(min_length=1, max_length=64)
    priority: int = Field(default=5, ge=0, le=9)


class Summary(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: uuid.UUID
    name: str | None
    status: str
    created_at: datetime.datetime
    compute_units_used: int


class Whole(Summary):
    priority: int
    spec: dict[str, Any]


class Login(BaseModel):
    username: str
    password: str


async def session():
    async with sessions() as opened:
        yield opened


def caller(credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> uuid.UUID:
    try:
        return uuid.UUID(jwt.decode(credentials.credentials, SECRET, algorithms=["HS256"])["sub"])
    except (jwt.PyJWTError, ValueError, KeyError):
        raise HTTPException(401) from None


Session = Annotated[AsyncSession, Depends(session)]
Caller = Annotated[uuid.UUID, Depends(caller)]


@app.get("/api/v1/tasks", response_model=list[Summary])
async def tasks(opened: Session, user: Caller):
    query = select(Task.id, Task.name, Task.status, Task.created_at, Task.compute_units_used)
    rows = await opened.execute(query.where(Task.user_id == user).order_by(Task.created_at.desc()).limit(20).offset(0))
    return rows.all()


@app.post("/api/v1/tasks", response_model=Whole, status_code=201)
async def create(opened: Session, user: Caller, body: NewTask):
    task = Task(user_id=user, name=body.name, priority=body.priority, spec=body.model_dump(exclude={"name", "priority"}))
    opened.add(task)
    await opened.commit()
    await opened.refresh(task)
    celery.send_task("scrape", (str(task.id),))
    return task


@app.get("/api/v1/dashboard/stats")
async def dashboard(opened: Session, user: Caller):
    count = func.count
    query = select(
        count(),
        count().filter(Task.status.in_(("pending", "running"))),
        count().filter(Task.status == "succeeded"),
        count().filter(Task.status == "failed"),
        func.coalesce(func.sum(Task.pages), 0),
        func.coalesce(func.sum(Task.records), 0),
        func.coalesce(func.sum(Task.compute_units_used), 0),
    ).where(Task.user_id == user)
    row = (await opened.execute(query)).one()
    return dict(zip(("tasks", "open", "succeeded", "failed", "pages", "records", "compute_units_used"), row))


@app.post("/api/v1/auth/login")
async def login(opened: Session, body: Login):
    user = (await opened.execute(select(User).where(User.name == body.username))).scalar_one_or_none()
    if user is None:
        raise HTTPException(401)
    try:
        await asyncio.to_thread(hasher.verify, user.password_hash, body.password)
    except VerifyMismatchError:
        raise HTTPException(401) from None
    now = datetime.datetime.now(datetime.UTC)
    claims = {"sub": str(user.id), "iat": now, "exp": now + datetime.timedelta(minutes=15)}
    return {"access_token": jwt.encode(claims, SECRET, algorithm="HS256"), "token_type": "Bearer"}


@app.get("/health")
async def health():
    return {"status": "ok"}
